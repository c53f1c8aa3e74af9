"""What an ablation's measurements say: paired ratios with intervals, tables, plots, words."""
