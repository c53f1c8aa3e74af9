"""Fifty prompts, some of whose answers hold characters of several bytes."""

from __future__ import annotations

_TOPICS = ("the sea", "a clock", "two brothers", "rain", "a library", "bread", "the moon",
           "an old dog", "music", "a bridge")  # fmt: skip
_FORMS = (
    "Tell me something about {}.",
    "Write a sentence that begins with {} and ends with an emoji: ",
    "Translate into Japanese: {} = ",
    "Once upon a time there was {} and",
    "List three facts about {}:\n1.",
)

PROMPTS = [form.format(topic) for topic in _TOPICS for form in _FORMS]
EMOJI = "Repeat: 🎉 日本語 größe 🎉 日本語 größe 🎉 日本語 größe 🎉 日本語"
