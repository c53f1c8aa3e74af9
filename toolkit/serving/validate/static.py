"""The check that needs no server: the repository it was started from is sound."""

from __future__ import annotations

from toolkit.serving.validate.check import Check, Context, Failed, Skipped


def _repository(context: Context) -> str:
    from toolkit.repository.check import check_static

    if context.repository is None:
        raise Skipped("the server was not deployed from here")
    findings = check_static(context.repository)
    errors = [each for each in findings if each.severity == "error"]
    if errors:
        shown = "; ".join(f"{each.where}: {each.message}" for each in errors[:5])
        more = f" and {len(errors) - 5} more" if len(errors) > 5 else ""
        raise Failed(f"{shown}{more}")
    return f"no errors, {len(findings)} warnings"


CHECKS = (
    Check(
        "repository",
        "configurations parse, names and types fit each other, and all files are there",
        "render the repository again with this version: toolkit build",
        _repository,
    ),
)
