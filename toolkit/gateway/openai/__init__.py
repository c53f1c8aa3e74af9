"""The OpenAI-compatible API: requests in, work out, pieces back."""

from toolkit.gateway.openai.app import create_app as create_app
from toolkit.gateway.openai.protocol import GatewayProtocol as GatewayProtocol
from toolkit.gateway.openai.served import ServedModel as ServedModel
from toolkit.gateway.openai.settings import ApiSettings as ApiSettings
