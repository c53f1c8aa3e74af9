"""What gateways and Tritons are doing: scrape them, and take the difference of two looks."""

from toolkit.gateway.watch.difference import between as between
from toolkit.gateway.watch.reading import Reading as Reading
from toolkit.gateway.watch.reading import Target as Target
from toolkit.gateway.watch.scrape import look as look
from toolkit.gateway.watch.view import View as View
