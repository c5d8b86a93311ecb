"""A Hub on this machine, which speaks as much of the Hub's HTTP interface as its client uses.

Repositories of models with branches, pull requests and private ones, uploads by Git LFS, downloads
with the headers that a cache goes by. It fails on request, and says what it was asked:

    with HubServer() as hub:
        hub.fail("upload", status=500)      # the next PUT of a large file
        ... HF_ENDPOINT=hub.url, HF_HUB_DISABLE_XET=1, HF_TOKEN=hub.TOKEN ...
        hub.files("me/model")               # {"config.json": b"...", ...}
"""

import base64
import hashlib
import json
import re
import socket
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.parse import parse_qs, unquote, urlsplit

import yaml
from huggingface_hub import constants
from huggingface_hub.utils import _http
from transformers.utils import hub as transformers_hub

LARGE = (".safetensors", ".bin", ".onnx", ".onnx_data", ".pt", ".pth")  # by Git LFS, as there
DROP = "drop"  # the connection, in place of a status


@dataclass
class Repository:
    is_private: bool = False
    refs: dict[str, str] = field(default_factory=dict)  # branches and pull requests to commits
    trees: dict[str, dict[str, bytes]] = field(default_factory=dict)  # of each commit
    large: set[str] = field(default_factory=set)  # SHA-256 of contents that came by LFS
    titles: list[str] = field(default_factory=list)  # of its commits
    pull_requests: list[str] = field(default_factory=list)  # the branches they are for

    def commit(self, ref: str, tree: dict[str, bytes], title: str) -> str:
        state = json.dumps([len(self.trees), title, sorted(tree)])
        sha = hashlib.sha1(state.encode() + b"".join(tree.values())).hexdigest()
        self.trees[sha], self.refs[ref] = tree, sha
        self.titles.append(title)
        return sha

    def resolved(self, revision: str) -> str | None:
        return self.refs.get(revision, revision if revision in self.trees else None)


class Refusal(Exception):
    def __init__(self, status, code="", text=""):
        self.status, self.code, self.text = status, code, text


class HubServer:
    TOKEN = "hf_writes"
    READ_TOKEN = "hf_reads"

    def __init__(self):
        self.repositories = {}
        self.objects = {}  # what LFS stores, by SHA-256
        self.requests = []  # method and path
        self.failures = defaultdict(list)
        self.lock = threading.RLock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("_", (Handler,), {"hub": self}))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def be_the_hub(self, monkeypatch, cache):
        """Let the client in this process, which was offline when it was imported, ask here."""
        template = f"{self.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        told = {"ENDPOINT": self.url, "HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True}
        told |= {"HUGGINGFACE_CO_URL_TEMPLATE": template, "HF_HUB_CACHE": str(cache)}
        for name, value in told.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setattr(transformers_hub, "_hf_api", None)
        never = SimpleNamespace(**vars(time) | {"sleep": lambda seconds: None})
        monkeypatch.setattr(_http, "time", never)  # it waits before it tries again
        monkeypatch.setenv("HF_TOKEN", self.TOKEN)

    def environment(self, home):
        """What a process needs that is to take it for the Hub, with its cache in `home`."""
        here = {"HF_ENDPOINT": self.url, "HF_TOKEN": self.TOKEN, "HF_HOME": str(home)}
        return here | {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}

    def fail(self, step, status=500, times=1):
        """Fail the next requests of a step: create, branch, preupload, batch, upload, commit."""
        self.failures[step] += [status] * times

    def files(self, repo_id, revision="main"):
        """What a revision of a repository holds, by name."""
        repository = self.repositories[repo_id]
        return repository.trees[repository.refs.get(revision, revision)]

    def asked(self, *parts):
        """The requests whose method and path hold all of these."""
        return [line for line in self.requests if all(part in line for part in parts)]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubServer

    ROUTES = (
        ("POST", r"/api/validate-yaml", "validate_yaml"),
        ("GET", r"/api/whoami-v2", "whoami"),
        ("POST", r"/api/repos/create", "create"),
        ("GET", r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", "info"),
        ("GET", r"/api/models/([^/]+/[^/]+)/refs", "refs"),
        ("GET", r"/api/models/([^/]+/[^/]+)/tree/([^/]+)(?:/(.+))?", "tree"),
        ("POST", r"/api/models/([^/]+/[^/]+)/preupload/([^/]+)", "preupload"),
        ("POST", r"/api/models/([^/]+/[^/]+)/branch/([^/]+)", "branch"),
        ("POST", r"/api/models/([^/]+/[^/]+)/commit/([^/]+)", "commit"),
        ("POST", r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", "batch"),
        ("PUT", r"/lfs/([0-9a-f]{64})", "upload"),
        ("POST", r"/lfs/verify", "verify"),
        ("GET|HEAD", r"/cdn/([0-9a-f]{64})", "cdn"),
        ("GET|HEAD", r"/(?:datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", "resolve"),
    )

    def log_message(self, *args):
        pass

    def answer_request(self):
        url = urlsplit(self.path)
        self.query = {name: values[0] for name, values in parse_qs(url.query).items()}
        self.body = self.read_body()
        self.hub.requests.append(f"{self.command} {self.path}")
        for methods, pattern, name in self.ROUTES:
            found = re.fullmatch(pattern, url.path)
            if found and self.command in methods.split("|"):
                return self.answer(name, *(part and unquote(part) for part in found.groups()))
        self.reply(404, {"error": f"no route {self.command} {url.path}"})

    def answer(self, name, *parts):
        status = self.hub.failures[name].pop(0) if self.hub.failures[name] else None
        if status == DROP:
            self.close_connection = True
            return self.connection.shutdown(socket.SHUT_RDWR)
        if status is not None:
            return self.reply(
                status, {"error": "as asked for"}, **{"X-Error-Message": "on request"}
            )
        try:
            with self.hub.lock:
                getattr(self, name)(*parts)
        except Refusal as refusal:
            headers = {"X-Error-Code": refusal.code} if refusal.code else {}
            headers |= {"X-Error-Message": refusal.text or refusal.code}
            self.reply(refusal.status, {"error": refusal.text or refusal.code}, **headers)

    do_GET = do_HEAD = do_POST = do_PUT = answer_request

    def read_body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def reply(self, status, content=b"", **headers):
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
            headers["Content-Type"] = "application/json"
        self.send_response(status)
        for name, value in ({"Content-Length": len(content)} | headers).items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    # Who asks, and for what

    @property
    def token(self):
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None

    def check_writer(self):
        if self.token is None:
            raise Refusal(401, text="Invalid username or password.")
        if self.token != self.hub.TOKEN:
            raise Refusal(403, text="You do not have write access with this token.")

    def repository(self, repo_id):
        found = self.hub.repositories.get(repo_id)
        known = (self.hub.TOKEN, self.hub.READ_TOKEN)
        if found is None or (found.is_private and self.token not in known):
            raise Refusal(401 if self.token is None else 404, "RepoNotFound")
        return found

    def commit_of(self, repository, revision):
        if (sha := repository.resolved(revision or "main")) is None:
            raise Refusal(404, "RevisionNotFound")
        return sha

    # Repositories

    def validate_yaml(self):
        text = json.loads(self.body)["content"]
        header = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
        try:
            data = yaml.safe_load(header[1]) if header else {}
            errors = [] if isinstance(data, dict) else ["must be a mapping"]
        except yaml.YAMLError as error:
            errors = [str(error)]
        if not errors:
            languages = data.get("language") or []
            for code in [languages] if isinstance(languages, str) else languages:
                if not re.fullmatch("[a-z]{2,3}|multilingual|code", str(code)):
                    errors.append(f'"language" must be ISO 639-1, 639-2 or 639-3, got {code}')
            for dataset in data.get("datasets") or []:
                if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", dataset):
                    errors.append(f'"datasets" must hold ids, got {dataset}')
        told = [{"message": error} for error in errors]
        self.reply(400 if errors else 200, {"errors": told, "warnings": []})

    def whoami(self):
        self.check_writer()
        self.reply(200, {"type": "user", "name": "me", "orgs": []})

    def create(self):
        self.check_writer()
        asked = json.loads(self.body)
        repo_id = f"{asked.get('organization') or 'me'}/{asked['name']}"
        answer = {"url": f"{self.hub.url}/{repo_id}", "name": repo_id}
        if repo_id in self.hub.repositories:
            return self.reply(409, answer | {"error": "You already created this model repo"})
        repository = self.hub.repositories[repo_id] = Repository()
        repository.is_private = asked.get("visibility") == "private" or bool(asked.get("private"))
        repository.commit(
            "main", {".gitattributes": b"*.safetensors filter=lfs\n"}, "initial commit"
        )
        self.reply(200, answer)

    def branch(self, repo_id, name):
        self.check_writer()
        repository, asked = self.repository(repo_id), json.loads(self.body or b"{}")
        if name in repository.refs:
            raise Refusal(409, text=f"Reference already exists: refs/heads/{name}")
        if name.startswith("refs/"):
            raise Refusal(400, text="Invalid reference for a branch")
        repository.refs[name] = self.commit_of(repository, asked.get("startingPoint"))
        self.reply(200, {})

    def info(self, repo_id, revision):
        repository = self.repository(repo_id)
        sha = self.commit_of(repository, revision)
        files = [{"rfilename": name} for name in sorted(repository.trees[sha])]
        told = {"_id": "0" * 24, "id": repo_id, "modelId": repo_id, "sha": sha, "siblings": files}
        self.reply(200, told | {"private": repository.is_private, "tags": [], "downloads": 0})

    def refs(self, repo_id):
        refs = self.repository(repo_id).refs
        branches = [n for n in refs if not n.startswith("refs/")]
        told = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": refs[n]} for n in branches]
        self.reply(200, {"branches": told, "tags": [], "converts": []})

    def tree(self, repo_id, revision, folder):
        repository = self.repository(repo_id)
        tree = repository.trees[self.commit_of(repository, revision)]
        start = f"{folder}/" if folder else ""
        found, folders = [], set()
        for name in sorted(name for name in tree if name.startswith(start)):
            if self.query.get("recursive") in (None, "false") and "/" in name[len(start) :]:
                folders.add(start + name[len(start) :].split("/")[0])
                continue
            content = tree[name]
            told = {"type": "file", "path": name, "size": len(content), "oid": git_id(content)}
            if (sha := hashlib.sha256(content).hexdigest()) in repository.large:
                told["lfs"] = {"oid": sha, "size": len(content), "pointerSize": 130}
            found.append(told)
        found += [{"type": "directory", "path": name, "oid": "0" * 40} for name in sorted(folders)]
        if folder and not found:
            raise Refusal(404, "EntryNotFound")
        self.reply(200, found)

    # Writing

    def preupload(self, repo_id, revision):
        self.check_writer()
        repository = self.repository(repo_id)
        tree = repository.trees[self.commit_of(repository, revision)]
        told = []
        for file in json.loads(self.body)["files"]:
            is_large = file["path"].endswith(LARGE) or file["size"] > 10 * 2**20
            had = tree.get(file["path"])
            oid = had and (hashlib.sha256(had).hexdigest() if is_large else git_id(had))
            how = {"uploadMode": "lfs" if is_large else "regular", "shouldIgnore": False}
            told.append({"path": file["path"], "oid": oid} | how)
        self.reply(200, {"files": told})

    def batch(self, repo_id):
        self.check_writer()
        self.repository(repo_id)
        told = []
        for asked in json.loads(self.body)["objects"]:
            upload = {"href": f"{self.hub.url}/lfs/{asked['oid']}"}
            actions = {"upload": upload, "verify": {"href": f"{self.hub.url}/lfs/verify"}}
            is_there = asked["oid"] in self.hub.objects
            told.append(asked if is_there else asked | {"actions": actions})
        self.reply(200, {"transfer": "basic", "objects": told})

    def upload(self, oid):
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise Refusal(400, text="the content is not what it was said to be")
        self.hub.objects[oid] = self.body
        self.reply(200)

    def verify(self):
        asked = json.loads(self.body)
        is_there = len(self.hub.objects.get(asked["oid"], b"")) == asked["size"]
        self.reply(200 if is_there else 404, {})

    def commit(self, repo_id, revision):
        self.check_writer()
        repository = self.repository(repo_id)
        parent = self.commit_of(repository, revision)
        tree, title, large = dict(repository.trees[parent]), "", set()
        for line in self.body.splitlines():
            key, value = (item := json.loads(line))["key"], item["value"]
            if key == "header":
                title = value["summary"]
                if value.get("parentCommit") not in (None, parent):
                    raise Refusal(412, text="A commit has happened since. Please refresh.")
            elif key == "file":
                tree[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                if value["oid"] not in self.hub.objects:
                    raise Refusal(400, text=f"LFS pointer to a file that is not there: {value}")
                tree[value["path"]] = self.hub.objects[value["oid"]]
                large.add(value["oid"])
            elif key == "deletedFile":
                del tree[value["path"]]
            else:
                raise Refusal(400, text=f"unknown operation {key}")
        told, ref = {}, revision
        if self.query.get("create_pr") == "1":
            repository.pull_requests.append(revision)
            number = len(repository.pull_requests)
            ref = f"refs/pr/{number}"
            told["pullRequestUrl"] = f"{self.hub.url}/{repo_id}/discussions/{number}"
        repository.large |= large
        sha = repository.commit(ref, tree, title)
        told |= {"success": True, "commitOid": sha}
        self.reply(200, told | {"commitUrl": f"{self.hub.url}/{repo_id}/commit/{sha}"})

    # Reading

    def resolve(self, repo_id, revision, name):
        repository = self.repository(repo_id)
        sha = self.commit_of(repository, revision)
        headers = {"X-Repo-Commit": sha}
        if name not in repository.trees[sha]:
            headers |= {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}
            return self.reply(404, b"", **headers)
        content = repository.trees[sha][name]
        if (oid := hashlib.sha256(content).hexdigest()) in repository.large:
            linked = {"X-Linked-Etag": f'"{oid}"', "X-Linked-Size": len(content)}
            elsewhere = self.hub.url.replace("127.0.0.1", "localhost")  # which clients follow last
            return self.reply(302, b"", **headers, **linked, Location=f"{elsewhere}/cdn/{oid}")
        self.send_part(content, headers | {"ETag": f'"{git_id(content)}"'})

    def cdn(self, oid):
        self.send_part(self.hub.objects[oid], {"ETag": f'"{oid}"'})

    def send_part(self, content, headers):
        headers |= {"Accept-Ranges": "bytes"}
        if found := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
            first, last = int(found[1]), int(found[2] or len(content) - 1)
            headers |= {"Content-Range": f"bytes {first}-{last}/{len(content)}"}
            return self.reply(206, content[first : last + 1], **headers)
        self.reply(200, content, **headers)


def git_id(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
