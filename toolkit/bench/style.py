"""The style sheet of HTML reports, light and dark.

The series' colours are Okabe and Ito's, which colour-blind readers can tell apart
(https://jfly.uni-koeln.de/color/).
"""

from __future__ import annotations

_SERIES = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#8a7f00",
    "#7a7a7a",
)

_BASE = """
:root{--ink:#1b1f24;--soft:#5b6570;--rule:#e3e7eb;--page:#f6f7f9;--card:#fff;--shade:#eef3f8;
--warn:#fff4e0;--warn-ink:#7a4b00}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ec;--soft:#9aa4ae;--rule:#30363d;--page:#14181c;
--card:#1c2127;--shade:#222a33;--warn:#3a2d12;--warn-ink:#ffd58a}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:1180px;margin:0 auto;padding:32px 20px 60px}
h1{font-size:26px;margin:0}h2{font-size:18px;margin:34px 0 10px}
.lead{color:var(--soft);margin:2px 0 20px}.small{color:var(--soft);font-size:13px}
.warn{background:var(--warn);color:var(--warn-ink);border-radius:8px;padding:9px 14px;margin:8px 0}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(190px,1fr));gap:14px;margin:18px 0}
.tiles div,figure,.scroll,details{background:var(--card);border:1px solid var(--rule);
border-radius:10px}
.tiles div{padding:14px 18px}.tiles b{display:block;font-size:26px;font-weight:650}
.tiles span{display:block}.tiles small{color:var(--soft)}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,480px),1fr));gap:16px;
margin:18px 0}
figure{margin:0;padding:14px 16px 8px}figcaption{font-weight:600;margin-bottom:6px}
svg{display:block;width:100%;height:auto}
svg text{fill:var(--soft);font-size:11.5px;font-family:inherit}svg .axis{font-size:12.5px}
svg .mark{font-size:11px;paint-order:stroke;stroke:var(--card);stroke-width:3px}
.grid{stroke:var(--rule);stroke-width:1}.line{fill:none;stroke-width:2;stroke-linejoin:round}
.band{stroke-width:2;opacity:.45}.window{fill:var(--shade)}
rect.wait,.key.wait{fill:#e69f00;background:#e69f00}
rect.run,.key.run{fill:#0072b2;background:#0072b2}
rect.fail,.key.fail{fill:#c62828;background:#c62828}
.legend{margin:4px 0 6px;display:flex;flex-wrap:wrap;gap:4px 16px;font-size:13px;color:var(--soft)}
.key{display:inline-block;width:12px;height:12px;border-radius:3px;margin-right:6px;
vertical-align:-1px}
.scroll{overflow-x:auto;margin:12px 0}table{border-collapse:collapse;width:100%;font-size:14px}
th,td{padding:8px 7px;text-align:right;white-space:nowrap;border-bottom:1px solid var(--rule);
font-variant-numeric:tabular-nums}
th:first-child,td:first-child{text-align:left;padding-left:12px}
th:last-child,td:last-child{padding-right:12px}th{white-space:normal;vertical-align:bottom;color:var(--soft);font-weight:600}
tr:last-child td{border-bottom:0}
details{padding:10px 16px;margin:12px 0}summary{cursor:pointer;font-weight:600}
details .scroll{border:0}
dl{display:grid;grid-template-columns:max-content 1fr;gap:4px 18px}dt{color:var(--soft)}dd{margin:0}
"""

STYLE = _BASE + "".join(
    f".s{index}{{stroke:{colour}}}.f{index}{{fill:{colour}}}.c{index}{{background:{colour}}}"
    for index, colour in enumerate(_SERIES)
)
