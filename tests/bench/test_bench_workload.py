"""Prompts: exact lengths, one seed one workload, real history, files with line numbers."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from toolkit.bench.chat import Message, PlainChat, TemplateChat, chat_format
from toolkit.bench.lengths import Length
from toolkit.bench.vocabulary import Tokens, Words
from toolkit.bench.workload import Material, Session, Workload
from toolkit.errors import SpecError, UnsupportedError


def workload(**settings: Any) -> Workload:
    made: Workload = TypeAdapter(Workload).validate_python(settings)
    return made


def take(count: int, made: Workload, material: Material | None = None) -> list[Session]:
    return list(itertools.islice(made.sessions(material or Material()), count))


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level BPE that has learned enough whole words, and adds a token of its own."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    letters = "abcdefghijklmnopqrstuvwxyz"
    dice = random.Random(1)
    words = ["the", *("".join(dice.choices(letters, k=dice.randint(3, 6))) for _ in range(300))]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=3000,
        special_tokens=["<s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(
        [f"{a} {b}" for a in words for b in dice.sample(words, 30)], trainer
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def test_prompts_have_exactly_the_tokens_asked_for(tokenizer_folder: Path) -> None:
    from tokenizers import Tokenizer

    reference = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    material = Material(vocabulary=Tokens(tokenizer_folder))
    for length in (2, 3, 17, 500):
        for session in take(5, workload(type="independent", prompt_tokens=length), material):
            assert len(reference.encode(session.prompt(0, [])).ids) == length


def test_a_tokenizer_without_words_is_refused(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models

    Tokenizer(models.WordLevel({"a": 0, "?": 1}, unk_token="?")).save(
        str(tmp_path / "tokenizer.json")
    )
    with pytest.raises(UnsupportedError):
        Tokens(tmp_path)
    with pytest.raises(SpecError):
        Tokens(tmp_path / "absent")


def test_one_seed_is_one_workload_and_another_is_another() -> None:
    made = workload(
        type="conversation",
        turns={"distribution": "uniform", "low": 1, "high": 4},
        output_tokens={"distribution": "normal", "mean": 40, "std": 10},
    )
    first, again = take(20, made, Material(salt="1")), take(20, made, Material(salt="1"))
    other = take(20, made, Material(salt="2"))
    assert [one.turns for one in first] == [one.turns for one in again]
    assert not {turn.text for one in first for turn in one.turns} & {
        turn.text for one in other for turn in one.turns
    }


def test_no_two_prompts_begin_alike_by_more_than_chance() -> None:
    prompts = [one.prompt(0, []) for one in take(50, workload(type="independent"))]
    assert len({prompt[:40] for prompt in prompts}) == 50


def test_shared_prefixes_are_shared_and_the_rest_is_not() -> None:
    made = workload(type="shared_prefix", prefix_tokens=50, prefixes=2, prompt_tokens=5)
    prompts = [one.prompt(0, []).split() for one in take(6, made)]
    assert all(len(prompt) == 55 for prompt in prompts)
    assert len({tuple(prompt[:50]) for prompt in prompts}) == 2
    assert prompts[0][:50] == prompts[2][:50] != prompts[1][:50]
    assert len({tuple(prompt[50:]) for prompt in prompts}) == 6


def test_history_grows_with_the_models_own_answers() -> None:
    made = workload(type="conversation", turns=3, system_tokens=4, user_tokens=2)
    (session,) = take(1, made)
    answers: list[str] = []
    previous = ""
    for turn in range(3):
        prompt = session.prompt(turn, answers)
        assert prompt.startswith(previous.removesuffix("Assistant:"))
        assert all(answer in prompt for answer in answers)
        assert session.turns[turn].text in prompt
        previous = prompt
        answers.append(f"the answer number {turn}")
    assert "the answer number 2" not in previous


def test_exact_output_forbids_an_early_stop() -> None:
    (free,) = take(1, workload(type="independent", output_tokens=9, exact_output=False))
    (exact,) = take(1, workload(type="independent", output_tokens=9))
    assert (free.turns[0].max_tokens, free.turns[0].min_tokens) == (9, None)
    assert (exact.turns[0].max_tokens, exact.turns[0].min_tokens) == (9, 9)


@pytest.mark.parametrize(
    ("spec", "low", "high", "middle"),
    [
        (12, 12, 12, 12),
        ({"distribution": "uniform", "low": 5, "high": 15}, 5, 15, 10),
        ({"distribution": "normal", "mean": 50, "std": 10, "min": 30, "max": 70}, 30, 70, 50),
        ({"distribution": "lognormal", "median": 100, "sigma": 1, "max": 900}, 1, 900, 100),
    ],
)
def test_lengths_follow_their_distribution(spec: Any, low: int, high: int, middle: int) -> None:
    length: Length = TypeAdapter(Length).validate_python(spec)
    dice = random.Random(5)
    drawn = sorted(length.draw(dice) for _ in range(4001))
    assert low <= drawn[0]
    assert drawn[-1] <= high
    assert drawn[2000] == pytest.approx(middle, rel=0.06)


def test_words_stand_in_for_tokens() -> None:
    words = Words()
    assert words.count(words.make(37, random.Random(0))) == 37


def write(path: Path, lines: Sequence[object]) -> Path:
    path.write_text("\n".join(json.dumps(line) for line in lines))
    return path


def test_a_file_of_prompts_is_played_over_and_over(tmp_path: Path) -> None:
    path = write(
        tmp_path / "p.jsonl",
        [
            {"prompt": "as it is", "max_tokens": 5, "class": "batch"},
            {"turns": ["hi", "and?"], "system": "be brief"},
        ],
    )
    made = workload(type="file", path=str(path), output_tokens=7)
    one, two, again = take(3, made)
    assert one.prompt(0, []) == "as it is" == again.prompt(0, [])
    assert (one.turns[0].max_tokens, one.request_class) == (5, "batch")
    assert (
        two.prompt(1, ["hello"]) == "be brief\nUser: hi\nAssistant: hello\nUser: and?\nAssistant:"
    )
    assert two.turns[1].max_tokens == 7
    once = workload(type="file", path=str(path), repeat=False, shuffle=True)
    assert len(take(9, once)) == 2


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"prompt": "a", "turns": ["b"]}', "either"),
        ('{"max_tokens": 3}', "either"),
        ('{"prompt": ""}', "not empty"),
        ('{"turns": []}', "not empty"),
        ('{"turns": ["a", 3]}', "not empty"),
        ('{"prompt": "a", "max_tokens": 0}', "max_tokens"),
        ('{"prompt": "a", "max_tokens": true}', "max_tokens"),
        ('{"promt": "a"}', "promt"),
        ("[1]", "object"),
        ("{", "JSON"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, words: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "fine"}\n\n' + line + "\n")
    with pytest.raises(SpecError) as caught:
        take(1, workload(type="file", path=str(path)))
    assert caught.value.where == f"{path}:3"
    assert words in caught.value.message


def test_an_absent_or_empty_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.jsonl", write(tmp_path / "empty.jsonl", [])):
        with pytest.raises(SpecError):
            take(1, workload(type="file", path=str(path)))


TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


def test_the_checkpoints_own_chat_template_is_used(tmp_path: Path) -> None:
    config = {"chat_template": TEMPLATE, "bos_token": {"content": "<s>"}, "eos_token": "</s>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    chat = chat_format(tmp_path / "tokenizer.json")
    said = [Message("user", "hi"), Message("assistant", "yes"), Message("user", "so?")]
    assert chat.prompt(said) == "<s><user>hi</s><assistant>yes</s><user>so?</s><assistant>"
    (tmp_path / "chat_template.jinja").write_text("own file {{ messages[0].content }}")
    assert chat_format(tmp_path).prompt(said) == "own file hi"


def test_without_a_template_the_chat_is_plain(tmp_path: Path) -> None:
    assert isinstance(chat_format(None), PlainChat)
    assert isinstance(chat_format(tmp_path), PlainChat)


def test_a_hostile_or_broken_template_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "chat_template.jinja"
    file.write_text("{% if %}")
    with pytest.raises(SpecError):
        TemplateChat(tmp_path)
    file.write_text("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(SpecError, match="alternate"):
        TemplateChat(tmp_path).prompt([Message("user", "x")])
    file.write_text("{{ ''.__class__.__mro__[1].__subclasses__() }}")
    with pytest.raises(Exception, match="unsafe"):
        TemplateChat(tmp_path).prompt([Message("user", "x")])
