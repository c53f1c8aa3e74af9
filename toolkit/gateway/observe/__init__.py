"""Files that make a deployment watched: scrape configuration, alert rules, a dashboard."""

from toolkit.gateway.observe.files import Watching as Watching
from toolkit.gateway.observe.files import render as render
