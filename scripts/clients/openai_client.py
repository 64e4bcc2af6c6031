"""Uses `icllama serve` with the openai package: models, a chat at once and streamed, completions, errors, keys.

Usage: python openai_client.py URL KEY [EXPECTED]: the answer to the chat that `icllama run` gave, as its --json printed it.
"""

import json
import pathlib
import sys

import openai

QUESTION = [{"role": "user", "content": "What is gravity?"}]


def refused(kind, call):
    """The body of the error that a call has to raise."""
    try:
        call()
    except kind as error:
        return error.body
    raise AssertionError(f"nothing was refused with {kind.__name__}")


def main(url, key, expected=None):
    client = openai.OpenAI(base_url=url, api_key=key, max_retries=0)
    model = client.models.list().data[0].id
    assert client.models.retrieve(model).id == model

    asked = dict(model=model, messages=QUESTION, temperature=0, max_tokens=24)
    whole = client.chat.completions.create(**asked)
    text = whole.choices[0].message.content
    usage = whole.usage
    assert usage.completion_tokens == 24 and whole.choices[0].finish_reason == "length", whole
    if expected is not None:
        assert text == json.loads(pathlib.Path(expected).read_text())["text"], text

    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert streamed == text, (streamed, text)
    assert chunks[-1].usage.total_tokens == usage.total_tokens
    assert chunks[-1].usage.prompt_tokens_details.cached_tokens > 0, "the prompt was known"

    likely = client.chat.completions.create(**asked, logprobs=True, top_logprobs=3)
    content = likely.choices[0].logprobs.content
    assert "".join(token.token for token in content) == text and len(content[0].top_logprobs) == 3
    assert content[0].top_logprobs[0].token == content[0].token, "the likeliest was taken"

    json_object = {"type": "json_object"}
    answer = client.chat.completions.create(**{**asked, "max_tokens": 200}, response_format=json_object)
    if answer.choices[0].finish_reason == "stop":
        json.loads(answer.choices[0].message.content)

    completion = client.completions.create(model=model, prompt=["Once upon", "The sky"], temperature=0, max_tokens=5)
    assert [choice.index for choice in completion.choices] == [0, 1]
    streamed = client.completions.create(model=model, prompt="Once upon", temperature=0, max_tokens=5, stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed) == completion.choices[0].text

    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]
    error = refused(openai.BadRequestError, lambda: client.chat.completions.create(model=model, messages=image))
    assert error["param"] == "messages[0].content", error
    refused(openai.NotFoundError, lambda: client.models.retrieve("absent"))
    stranger = openai.OpenAI(base_url=url, api_key="wrong", max_retries=0)
    assert refused(openai.AuthenticationError, stranger.models.list)["code"] == "invalid_api_key"
    print(f"openai {openai.__version__}: {model}: {text!r}")


if __name__ == "__main__":
    main(*sys.argv[1:])
