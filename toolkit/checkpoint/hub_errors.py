"""What huggingface-hub raises, said so that one knows what to do."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from toolkit.errors import EnvironmentError_, SpecError, ToolkitError

_LOGIN = "run `hf auth login` or set HF_TOKEN"
_CARRY = (
    "fetch it on a machine with a connection and carry it over: "
    "`toolkit checkpoint pack SOURCE FILE.tar`, then `toolkit checkpoint unpack FILE.tar DIR`"
)


@contextmanager
def translated(repo: str, revision: str) -> Iterator[None]:
    """Turn errors of huggingface-hub and of the network into the toolkit's.

    Raises:
        SpecError: no such repository or revision.
        EnvironmentError_: no access, no connection, not in the cache, disk full.
    """
    from huggingface_hub import errors

    where = f"hf://{repo}@{revision}"
    try:
        yield
    except errors.GatedRepoError as error:
        raise _gated(repo, where) from error
    except errors.RepositoryNotFoundError as error:
        raise _unknown_repository(repo, where) from error
    except errors.RevisionNotFoundError as error:
        raise SpecError(
            f"{repo} has no revision {revision!r}",
            where=where,
            hint="name a branch, a tag or a commit of forty hex digits",
        ) from error
    except errors.HFValidationError as error:
        raise SpecError(f"{repo!r} is no repository name: {error}", where=where) from error
    except errors.LocalEntryNotFoundError as error:
        raise _not_cached(repo, where, error) from error
    except errors.HfHubHTTPError as error:
        raise _refused(repo, where, error) from error
    except OSError as error:
        raise _system(repo, where, error) from error
    except Exception as error:
        if not _is_network(error):
            raise
        raise _unreachable(repo, where, error) from error


def _gated(repo: str, where: str) -> EnvironmentError_:
    has_token = _has_token()
    return EnvironmentError_(
        f"{repo} is gated: its owner has not let this account in"
        if has_token
        else f"{repo} is gated and you are not logged in to the hub",
        where=where,
        hint=f"accept its terms at https://huggingface.co/{repo}, then "
        + ("use a token of that account with read access to gated models" if has_token else _LOGIN),
    )


def _unknown_repository(repo: str, where: str) -> SpecError:
    return SpecError(
        f"the hub has no model {repo}, or it is private",
        where=where,
        hint="check the spelling; if it is private, "
        + ("use a token that may read it" if _has_token() else _LOGIN),
    )


def _not_cached(repo: str, where: str, error: Exception) -> EnvironmentError_:
    cause = error.__cause__
    if cause is not None and _is_network(cause):
        return _unreachable(repo, where, cause)
    return EnvironmentError_(
        f"{repo} is not completely in the local cache, and the hub may not be called (offline)",
        where=where,
        hint=_CARRY,
    )


def _refused(repo: str, where: str, error: Exception) -> ToolkitError:
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if status == 401:
        message, hint = f"the hub does not accept the token for {repo}", f"{_LOGIN} anew"
    elif status == 403:
        message, hint = f"the hub forbids access to {repo}", "use a token that may read it"
    elif status == 429:
        message, hint = "the hub's rate limit is reached", f"wait some minutes, or {_LOGIN}"
    else:
        message, hint = (
            f"the hub answered {status} for {repo}",
            "try again later; what is there is kept",
        )
    return EnvironmentError_(message, where=where, hint=hint, details=_first_lines(error))


def _system(repo: str, where: str, error: OSError) -> EnvironmentError_:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return EnvironmentError_(
            "the disk of the hub's cache is full",
            where=where,
            hint="free space, or set HF_HOME to another disk",
        )
    if _is_network(error):
        return _unreachable(repo, where, error)
    return EnvironmentError_(
        f"{repo} could not be fetched: {(_first_lines(error) or ('',))[0]}",
        where=where,
        hint="run the same command again: complete files are kept",
        details=_first_lines(error)[1:],
    )


def _unreachable(repo: str, where: str, error: BaseException) -> EnvironmentError_:
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    return EnvironmentError_(
        f"{repo} could not be fetched: no connection to {endpoint}",
        where=where,
        hint=f"check network and proxy (HTTPS_PROXY), or {_CARRY}",
        details=_first_lines(error),
    )


def _is_network(error: BaseException) -> bool:
    # huggingface-hub uses httpx since 1.0 and requests before; neither is imported for this.
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    names = {f"{kind.__module__.split('.')[0]}.{kind.__name__}" for kind in type(error).__mro__}
    return bool(names & {"httpx.TransportError", "requests.ConnectionError", "requests.Timeout"})


def _has_token() -> bool:
    from huggingface_hub import get_token

    return get_token() is not None


def _first_lines(error: BaseException) -> tuple[str, ...]:
    return tuple(line for line in str(error).splitlines() if line.strip())[:3]
