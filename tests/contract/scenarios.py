"""Sends requests through the official SDK's generated client: scenarios.py URL KEY.

Reads a request a line, as JSON, and answers a line each: the status, the body as the SDK shows it, and what kept the SDK
from sending or reading it. Requests that are marked as raw, and operations that the SDK does not have, go past it.
"""

import datetime
import enum
import inspect
import json
import pathlib
import re
import sys
import typing
import urllib.parse

import mixpeek
import pydantic
import urllib3

counts = dict.fromkeys(["through the SDK", "marked raw", "not in the SDK"], 0)
past = {"parameters past the SDK": set(), "keys past its models": set()}


def operations():
    """Method and path of each operation, to its class, its function, and the arguments that it takes."""
    found = {}
    for file in sorted(pathlib.Path(mixpeek.__file__).parent.joinpath("api").glob("*_api.py")):
        text = file.read_text()
        name = re.search(r"^class (\w+Api)", text, re.MULTILINE)
        for part in re.split(r"^    def _", text, flags=re.MULTILINE)[1:]:
            function = re.match(r"(\w+)_serialize\(", part)
            method = re.search(r"method='(\w+)',\s+resource_path='([^']+)'", part)
            if name and function and method:
                arguments = {
                    "path": dict(re.findall(r"_path_params\['([^']+)'\] = (\w+)", part)),
                    "query": dict(re.findall(r"_query_params\.append\(\('([^']+)', (\w+)", part)),
                    "body": re.findall(r"_body_params = (\w+)", part),
                }
                found.setdefault(method.groups(), (name[1], function[1], arguments))
    return found


class Expressed(Exception):
    """The SDK can send a request that is marked as raw."""


class Client(mixpeek.ApiClient):
    """The SDK's client; it adds the query parameters that the SDK does not know, and keeps the last answer."""

    more = []
    last = None
    is_dry = False

    def param_serialize(self, method, resource_path, path_params=None, query_params=None, *rest, **named):
        query_params = (query_params or []) + self.more
        return super().param_serialize(method, resource_path, path_params, query_params, *rest, **named)

    def call_api(self, *arguments, **named):
        if self.is_dry:
            raise Expressed
        self.last = super().call_api(*arguments, **named)
        return self.last


def model_of(annotation):
    """The model that an argument takes, if it takes one."""
    if inspect.isclass(annotation) and issubclass(annotation, pydantic.BaseModel):
        return annotation
    return next(filter(None, map(model_of, typing.get_args(annotation))), None)


def lost(body, sent, at=""):
    """What a model left out of a body or changed."""
    if isinstance(body, dict) and isinstance(sent, dict):
        return [each for key in body for each in lost(body[key], sent.get(key), f"{at}/{key}")]
    if isinstance(body, list) and isinstance(sent, list) and len(body) == len(sent):
        return [each for i, item in enumerate(body) for each in lost(item, sent[i], f"{at}/{i}")]
    return [] if body == sent and isinstance(body, bool) == isinstance(sent, bool) or same_time(body, sent) else [at]


def same_time(a, b):
    """Whether two texts are the same time in two spellings."""
    try:
        return datetime.datetime.fromisoformat(a) == datetime.datetime.fromisoformat(b)
    except (TypeError, ValueError):
        return False


def number(text):
    """A part of a path that is a whole number, which the SDK's functions do not take as text."""
    return int(text) if text.isascii() and text.isdigit() else text


def shown(value, raw):
    """An answer as the SDK shows it. What its models have no field for comes from the answer itself."""
    if hasattr(value, "actual_instance"):
        return shown(value.actual_instance, raw)
    if isinstance(value, pydantic.BaseModel):
        fields = {field.alias or name: getattr(value, name) for name, field in type(value).model_fields.items()}
        own = fields.pop("additional_properties", None) or {}
        whole = raw if isinstance(raw, dict) else {}
        fields = {name: field for name, field in fields.items() if field is not None or name in whole}
        more = {name: field for name, field in whole.items() if name not in fields and name not in own}
        past["keys past its models"].update(f"{type(value).__name__}.{name}" for name in more)
        return {name: shown(field, whole.get(name)) for name, field in {**fields, **own}.items()} | more
    if isinstance(value, dict):
        whole = raw if isinstance(raw, dict) else {}
        return {name: shown(field, whole.get(name)) for name, field in value.items()}
    if isinstance(value, list):
        whole = raw if isinstance(raw, list) else []
        return [shown(item, whole[i] if i < len(whole) else None) for i, item in enumerate(value)]
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, datetime.datetime):
        return raw if isinstance(raw, str) and datetime.datetime.fromisoformat(raw) == value else value.isoformat()
    return value


def read(text):
    try:
        return json.loads(text)
    except ValueError:
        return text


def answered(status, body, problem=None):
    return {"status": status, "body": body, "problem": problem}


class Runner:
    def __init__(self, url, key):
        self.url, self.key = url, key
        self.operations, self.models = operations(), {}
        self.client = Client(mixpeek.Configuration(host=url, access_token=key))
        self.http = urllib3.PoolManager()

    def answer(self, request):
        if request["fetch"]:
            response = self.http.request("GET", request["fetch"])
            return answered(response.status, read(response.data.decode()))
        operation = self.operations.get((request["method"], request["template"]))
        if not operation:
            counts["not in the SDK"] += 1
            return self.past_the_sdk(request)
        if request["raw"]:
            counts["marked raw"] += 1
            if self.can_be_expressed(request, operation):
                return answered(0, None, "the step is marked `raw`, but the SDK can send its request")
            return self.past_the_sdk(request)
        counts["through the SDK"] += 1
        return self.through_the_sdk(request, *operation)

    def can_be_expressed(self, request, operation):
        self.client.is_dry = True
        try:
            self.through_the_sdk({**request, "headers": dict(request["headers"])}, *operation)
        except Expressed:
            return True
        finally:
            self.client.is_dry = False
        return False

    def past_the_sdk(self, request):
        path = request["template"]
        for name, value in request["path"].items():
            path = path.replace("{%s}" % name, urllib.parse.quote(value, safe=""))
        query = urllib.parse.urlencode([(name, self.plain(value)) for name, value in self.pairs(request["query"])])
        headers = {"Authorization": f"Bearer {self.key}", **request["headers"]}
        body = None
        if request["body"] is not None:
            body, headers["Content-Type"] = json.dumps(request["body"]), "application/json"
        url = self.url + path + ("?" + query if query else "")
        response = self.http.request(request["method"], url, body=body, headers=headers, redirect=False)
        return answered(response.status, read(response.data.decode()))

    @staticmethod
    def pairs(query):
        return [(name, each) for name, value in query.items() for each in (value if isinstance(value, list) else [value])]

    @staticmethod
    def plain(value):
        return value if isinstance(value, str) else json.dumps(value)

    def body_model(self, function, argument):
        if function.__qualname__ not in self.models:
            self.models[function.__qualname__] = model_of(inspect.signature(function).parameters[argument].annotation)
        return self.models[function.__qualname__]

    def through_the_sdk(self, request, api, function, takes):
        function = getattr(getattr(mixpeek, api)(self.client), function + "_with_http_info")
        headers = request["headers"]
        self.client.configuration.api_key = {"NamespaceHeader": headers.pop("X-Namespace", None)}
        known = {name: value for name, value in request["query"].items() if name in takes["query"]}
        self.client.more = self.pairs({name: value for name, value in request["query"].items() if name not in known})
        self.client.more = [(name, self.plain(value)) for name, value in self.client.more]
        past["parameters past the SDK"].update(name for name, _ in self.client.more)
        parameters = inspect.signature(function).parameters
        arguments = {}
        for name, value in request["path"].items():
            argument = takes["path"][name]
            is_number = getattr(parameters[argument].annotation, "__origin__", None) is int
            arguments[argument] = number(value) if is_number else value
        arguments |= {takes["query"][name]: value for name, value in known.items()}
        body = request["body"]
        if body is not None and not takes["body"]:
            return answered(0, None, "the SDK sends no body here")
        self.client.last = None
        try:
            if body is not None:
                model = self.body_model(function, takes["body"][0])
                typed = model.from_dict(body) if model else body
                if left_out := lost(body, self.client.sanitize_for_serialization(typed)):
                    return answered(0, None, f"the SDK's {model.__name__} cannot carry {', '.join(left_out)}")
                arguments[takes["body"][0]] = typed
            done = function(**arguments, _headers=headers or None)
        except Expressed:
            raise
        except mixpeek.exceptions.ApiException as error:
            return answered(error.status, read(error.body or ""))
        except Exception as error:  # Whatever it is, the file that it came from should be named with it.
            what = f"{type(error).__name__}: {error}"
            if self.client.last is None:
                return answered(0, None, f"the SDK cannot send this request: {what}")
            raw = read(self.client.last.data.decode())
            return answered(self.client.last.status, raw, f"the SDK cannot read this answer: {what}")
        raw = read(done.raw_data.decode())
        if done.data is None and raw is not None and done.status_code != 204:
            return answered(done.status_code, raw, "the SDK answers None")
        return answered(done.status_code, shown(done.data, raw))


runner = Runner(sys.argv[1], sys.argv[2])
for line in sys.stdin:
    print(json.dumps(runner.answer(json.loads(line))), flush=True)
told = [f"{count} {what}" for what, count in counts.items()]
told += [f"{what}: {', '.join(sorted(names)) or 'none'}" for what, names in past.items()]
print("; ".join(told))
