"""Secrets and personal data are found in what is sent; names of columns are not taken for them."""

from pathlib import Path

import pytest

from ss_pipeline.llm.redaction import SHAPES, Redactor, redacted

COLUMN_NAMES = (Path(__file__).parent.parent / "fixtures" / "column_names.txt").read_text(encoding="utf-8").splitlines()

SECRETS = {
    "sk": "sk-T3stAbCdEfGh12IjKlMnOp34QrStUvWx",
    "sk-proj": "sk-proj-A1b2C3d4E5f6G7h8_I9j0-K1l2M3n4O5p6Q7r8",
    "sk-ant": "sk-ant-api03-Zx9Yw8Vu7Ts6Rq5Po4Nm3Lk2Ji1Hg0",
    "aws": "AKIAIOSFODNN7EXAMPLE",
    "bearer": "b8f3a1c09d7e4f56a2b1c0d9e8f7a6b5",
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P",
    "pem": "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEAtest\n-----END RSA PRIVATE KEY-----",
    "dsn": "hunter2pass",
    "whsec": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "userinfo": "ci-t0ken-77",
    "cookie": "session=9f8e7d6c5b4a39281706",
    "own key": "ssp_k1a2b3_" + "Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5MGFi",
    "password": "correct-horse-1",
    "email": "jane.doe+lab@stats.example.co.uk",
    "phone": "+86 138 0013 8000",
    "phone plain": "13800138000",
    "phone us": "(415) 555-2671",
    "phone land": "010-62345678",
    "id card": "11010519491231002X",
    "github": "ghp_" + "a1B2" * 9,
}
AROUND = {
    "bearer": "Authorization: Bearer {}",
    "dsn": "postgresql://app:{}@db.internal:5432/wages",
    "userinfo": "https://{}@git.example.com/x.git",
    "cookie": "Cookie: {}",
    "password": "password={}",
}
SENTENCES = (
    "{}",
    "Does education raise wages? Ask {} if in doubt.",
    "教育对工资有影响吗？请联系{}，谢谢。",
    '"{}"',
    "a\n{}\nb",
)


@pytest.mark.guarantee("L5")
@pytest.mark.seed("S2.1.11")
@pytest.mark.parametrize("sentence", SENTENCES)
@pytest.mark.parametrize("shape", SECRETS)
def test_a_secret_is_replaced_and_can_be_put_back(shape: str, sentence: str) -> None:
    secret = SECRETS[shape]
    text = sentence.format(AROUND.get(shape, "{}").format(secret))
    redactor = Redactor()

    clean = redactor.redact(text)

    assert secret not in clean
    assert clean != text
    assert redactor.restore(clean) == text


@pytest.mark.guarantee("L5")
def test_every_shape_catches_something() -> None:
    texts = [AROUND.get(shape, "{}").format(secret) for shape, secret in SECRETS.items()]
    assert [shape.pattern.pattern for shape in SHAPES if not any(map(shape.pattern.search, texts))] == []


@pytest.mark.guarantee("L5")
def test_three_hundred_names_of_columns_are_left_alone() -> None:
    assert len(COLUMN_NAMES) == len(set(COLUMN_NAMES)) == 300

    hit = [name for name in COLUMN_NAMES if redacted(name) != name]

    assert len(hit) <= 3, hit


@pytest.mark.parametrize(
    "text",
    [
        "Between 1990-1995 wages rose by 3.14159 percent, p < 0.05, n = 4,139.",
        "The token economy of sk-learn-based models; a bearer of bad news; cookie sales: 12.",
        "growth of +150000 against -2.5e-10, and +1.96 standard errors",
        "110105194912310021 is no identity number: its check digit is wrong",
        "see http://example.com/a:b/c and https://medium.com/@someone",
        "ids 20190115093000123 and 4155552671",
        "用2010年至2015年的数据，样本量13800人。",
    ],
)
def test_numbers_and_words_of_a_requirement_are_left_alone(text: str) -> None:
    assert redacted(text) == text


def test_the_same_secret_gets_the_same_placeholder_and_another_one_another() -> None:
    redactor = Redactor()

    first = redactor.redact("ann@example.org and bob@example.org")
    second = redactor.redact("bob@example.org")

    assert (first, second) == ("[EMAIL_1] and [EMAIL_2]", "[EMAIL_2]")


def test_words_that_look_like_placeholders_are_not_mixed_up_with_them() -> None:
    redactor = Redactor()
    text = "[EMAIL_1] is what we write for ann@example.org"

    clean = redactor.redact(text)

    assert clean == "[EMAIL_1] is what we write for [EMAIL_2]"
    assert redactor.restore(clean) == text


def test_long_texts_without_secrets_take_no_time() -> None:
    for text in ("a" * 200_000, "1 " * 100_000, "+1 (2) " * 30_000, "a.b@" * 50_000, "://" * 60_000):
        redacted(text)
