"""The ways of speculative decoding that a deployment file may choose from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from toolkit.spec.section import Names, Section, refuse


class DraftSource(Section):
    """The draft model: given, or derived from the target."""

    source: str | None = Field(default=None, description="Like model.source.")
    derive_layers: int | None = Field(
        default=None, ge=1, description="Keep this many of the target's layers and distill."
    )
    distill_steps: int = Field(
        default=200, ge=0, le=100_000, description="Training steps of a derived draft."
    )

    @model_validator(mode="after")
    def _one_origin(self) -> DraftSource:
        if (self.source is None) == (self.derive_layers is None):
            given = "neither source nor" if self.source is None else "both source and"
            raise refuse(
                f"a draft comes from one place, but {given} derive_layers is given",
                fields=("derive_layers", "source"),
                hint="give source (a draft model) or derive_layers (layers kept of the target)",
            )
        return self


class Drafting(Section):
    """What every method that checks a chain of drafts has."""

    max_draft_len: int = Field(default=5, ge=1, le=32, description="Tokens proposed at once.")
    max_concurrency: int | None = Field(
        default=None,
        ge=1,
        description="Pause while more requests than this generate; drafts pay for few at a time.",
    )


class DraftModel(Drafting):
    """A smaller model of the same vocabulary proposes tokens, the target verifies them."""

    method: Literal["draft_model"] = "draft_model"
    draft: DraftSource = Field(description="Where the draft model comes from.")


class NGram(Drafting):
    """Tokens that followed the same n-gram earlier in the prompt or output are proposed."""

    method: Literal["ngram"] = "ngram"
    max_matching_ngram_size: int = Field(
        default=3, ge=1, le=16, description="Longest run of tokens that is searched for."
    )


class Eagle3(Drafting):
    """An EAGLE-3 head trained for the target proposes tokens."""

    method: Literal["eagle3"] = "eagle3"
    source: str = Field(min_length=1, description="The head's checkpoint, like model.source.")
    max_draft_len: int = Field(default=4, ge=1, le=32, description="Tokens proposed at once.")


class Eagle(Section):
    """An EAGLE-1 head proposes a fixed tree of tokens (TensorRT engines only).

    The tree that EAGLE-2 grows while it generates cannot be asked for through Triton (NVIDIA's
    speculative decoding tutorial for the TensorRT-LLM backend).
    """

    method: Literal["eagle"] = "eagle"
    source: str = Field(min_length=1, description="The head's checkpoint, like model.source.")
    max_draft_len: int = Field(default=63, ge=1, le=256, description="Tokens proposed at once.")
    num_layers: int = Field(default=4, ge=1, le=32, description="Depth of the tree.")
    max_non_leaves_per_layer: int = Field(
        default=10, ge=1, le=256, description="Tokens of a level that may be continued."
    )
    choices: Names | None = Field(
        default=None,
        min_length=1,
        description="Branches of the tree as lists of ranks; TensorRT-LLM's default tree of 63, 4 "
        "deep, if absent.",
        examples=[["0", "0,0", "1", "0,1"]],
    )


class Medusa(Section):
    """Medusa heads of the checkpoint propose a tree of tokens (TensorRT engines only)."""

    method: Literal["medusa"] = "medusa"
    source: str = Field(min_length=1, description="The heads' checkpoint, like model.source.")
    max_draft_len: int = Field(default=63, ge=1, le=256, description="Tokens proposed at once.")
    num_heads: int = Field(default=4, ge=1, le=32, description="Heads, one a token of a branch.")
    choices: Names | None = Field(
        default=None,
        min_length=1,
        description="Branches of the tree as lists of ranks; TensorRT-LLM's default tree of 63 "
        "if absent.",
        examples=[["0", "0,0", "1", "0,1"]],
    )


class Lookahead(Section):
    """Lookahead decoding without a second model (TensorRT engines only)."""

    method: Literal["lookahead"] = "lookahead"
    window_size: int = Field(default=4, ge=1, le=32, description="Positions guessed in parallel.")
    ngram_size: int = Field(default=3, ge=1, le=32, description="Tokens of one guess.")
    verification_set_size: int = Field(
        default=4, ge=1, le=32, description="Guesses verified in one step."
    )

    @property
    def max_draft_len(self) -> int:
        """Tokens that a step may verify beyond the next one.

        (ngram - 2) + (window - 1 + verification) x (ngram - 1), nothing for n-grams of one token:
        83 for (7, 7, 7), as TensorRT-LLM's examples/lookahead/README.md has it.
        """
        if self.ngram_size == 1:
            return 0
        guessed = self.window_size - 1 + self.verification_set_size
        return self.ngram_size - 2 + guessed * (self.ngram_size - 1)


class MTP(Section):
    """The checkpoint's own multi-token-prediction layers propose tokens (DeepSeek)."""

    method: Literal["mtp"] = "mtp"
    num_nextn_predict_layers: int = Field(
        default=1, ge=1, le=8, description="Prediction layers used, one token each."
    )

    @property
    def max_draft_len(self) -> int:
        """Tokens proposed at once."""
        return self.num_nextn_predict_layers


Speculation = Annotated[
    DraftModel | NGram | Eagle3 | Eagle | Medusa | Lookahead | MTP, Field(discriminator="method")
]
