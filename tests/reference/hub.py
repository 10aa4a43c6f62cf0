"""The program and huggingface_hub on one cache, each reading what the other wrote, from a hub served on loopback.

Run: `python tests/reference/hub.py --limber target/release/limber --folder /tmp/hub-check`

The demo's decoder and a sharded copy of it are the repositories. Checked are:
- what `limber pull` wrote, by `hf_hub_download`, `snapshot_download`, `try_to_load_from_cache`, `scan_cache_dir` and
  transformers' `from_pretrained`, all offline, and by an online download that must fetch nothing again;
- what `snapshot_download` wrote, by `limber pull --offline` and a caption;
- one lock for both: while Python holds a blob's lock, the program waits;
- a hub behind TLS whose certificate `SSL_CERT_FILE` names, and that it is refused without.
"""

import argparse
import hashlib
import json
import os
import shutil
import ssl
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMMIT = "1" * 40


class Handler(BaseHTTPRequestHandler):
    """What huggingface.co answers: the API, small files, and large ones behind a redirect to `/store`."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def reply(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        server, path = self.server, self.path.split("?")[0]
        server.seen.append((self.command, path))
        if path.startswith("/store/"):
            found = [bytes_ for files in server.repositories.values() for bytes_ in files.values()]
            data = next(b for b in found if hashlib.sha256(b).hexdigest() == path[len("/store/") :])
            span = self.headers.get("Range")
            if span:
                start = int(span.removeprefix("bytes=").split("-")[0])
                return self.reply(206, data[start:], Content_Range=f"bytes {start}-{len(data) - 1}/{len(data)}")
            return self.reply(200, data)
        words = path.strip("/").split("/")
        if words[:2] == ["api", "models"]:
            files = server.repositories["/".join(words[2:4])]
            if words[4] == "revision":
                body = {"id": "/".join(words[2:4]), "sha": COMMIT, "siblings": [{"rfilename": n} for n in files]}
            else:
                body = [self.entry(name, data) for name, data in files.items()]
            return self.reply(200, json.dumps(body).encode(), Content_Type="application/json")
        files, name = server.repositories["/".join(words[:2])], "/".join(words[4:])
        if name not in files:
            return self.reply(404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
        entry = self.entry(name, files[name])
        if "lfs" not in entry:
            return self.reply(200, files[name], ETag=f'"{entry["oid"]}"', X_Repo_Commit=COMMIT)
        hash_ = entry["lfs"]["oid"]
        headers = {"X_Repo_Commit": COMMIT, "X_Linked_Etag": f'"{hash_}"', "X_Linked_Size": str(len(files[name]))}
        return self.reply(302, Location=f"{server.storage}/store/{hash_}", **headers)

    @staticmethod
    def entry(name, data):
        git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        entry = {"type": "file", "path": name, "size": len(data), "oid": git}
        if len(data) >= 1 << 16:
            entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
        return entry


def serve(repositories, certificate=None):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.repositories, server.seen = repositories, []
    # The storage server is another host, as on huggingface.co.
    server.storage = f"http://127.0.0.1:{server.server_port}"
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.storage = server.storage.replace("http:", "https:")
    server.address = f"http{'s' if certificate else ''}://localhost:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def clean(**more):
    """The environment without what the user set for Hugging Face."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING", "TRANSFORMERS_", "LIMBER_"))}
    return {**kept, "HF_HUB_DISABLE_UPDATE_CHECK": "1", "HF_HUB_DISABLE_TELEMETRY": "1", **more}


def python(code, **env):
    """Runs code in a process of its own, since huggingface_hub reads the environment once; its last line is JSON."""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=clean(**env))
    if ran.returncode != 0:
        return ran.stderr.strip().splitlines()[-1]
    return json.loads(ran.stdout.strip().splitlines()[-1])


READ = """
import json, warnings
warnings.simplefilter("ignore")
from huggingface_hub import hf_hub_download, snapshot_download, try_to_load_from_cache, scan_cache_dir
from huggingface_hub import _CACHED_NO_EXIST
from transformers import AutoModelForCausalLM, AutoTokenizer
names = NAMES
scan = scan_cache_dir()
model = AutoModelForCausalLM.from_pretrained("tiny/lm")
sharded = AutoModelForCausalLM.from_pretrained("tiny/sharded", revision="v1")
tokenizer = AutoTokenizer.from_pretrained("tiny/lm")
print(json.dumps({
    "paths": [hf_hub_download("tiny/lm", name) for name in names],
    "snapshot": snapshot_download("tiny/lm"),
    "absent": try_to_load_from_cache("tiny/lm", "merges.txt") is _CACHED_NO_EXIST,
    "warnings": [str(w) for w in scan.warnings],
    "repos": sorted([r.repo_id, sorted(x.commit_hash for x in r.revisions), sorted(r.refs), r.size_on_disk] for r in scan.repos),
    "weights": float(sum(p.double().sum() for p in model.parameters())),
    "sharded": float(sum(p.double().sum() for p in sharded.parameters())),
    "tokens": len(tokenizer),
}))
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limber", required=True, type=Path)
    parser.add_argument("--folder", required=True, type=Path, help="an empty or absent folder")
    found = parser.parse_args()
    program, folder = found.limber.resolve(), found.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        parser.error(f"{folder} is not empty")

    def limber(*words, **env):
        command = [program, *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, env=clean(**env), cwd=ROOT)

    checks = {}

    def check(name, passed, figure):
        checks[name] = passed
        print(f"  {'ok  ' if passed else 'FAIL'} {name}: {figure}")

    lm = {path.name: path.read_bytes() for path in sorted((ROOT / "assets/demo/gptj").iterdir()) if path.is_file()}
    from safetensors.torch import load, save

    tensors = load(lm["model.safetensors"])
    names = sorted(tensors)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    sharded = {"config.json": lm["config.json"]}
    for shard, held in shards.items():
        sharded[shard] = save({name: tensors[name].contiguous() for name in held}, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: shard for shard, held in shards.items() for name in held}}
    sharded["model.safetensors.index.json"] = json.dumps(index).encode()
    lm["model.safetensors"] = save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata={"format": "pt"})
    repositories = {"tiny/lm": lm, "tiny/sharded": sharded}
    hub = serve(repositories)

    # Ours, read by Python.
    ours = dict(HF_HOME=str(folder / "ours"), HF_ENDPOINT=hub.address)
    pulled = limber("pull", "--json", "hf:tiny/lm", "hf:tiny/sharded@v1", **ours)
    if pulled.returncode != 0:
        print(pulled.stderr)
    lines = [json.loads(line) for line in pulled.stdout.splitlines()]
    check("limber pull", pulled.returncode == 0, f"{sum(len(line['files']) for line in lines)} files")
    wanted = [file["name"] for file in lines[0]["files"]]
    read = python(READ.replace("NAMES", repr(wanted)), HF_HUB_OFFLINE="1", **ours)
    if isinstance(read, str):
        check("huggingface_hub and transformers read it offline", False, read)
    else:
        same = all(Path(path).read_bytes() == lm[name] for path, name in zip(read["paths"], wanted))
        check("hf_hub_download finds every file offline", same, f"{len(wanted)} files")
        check("snapshot_download finds the folder offline", read["snapshot"] == lines[0]["path"], read["snapshot"])
        check("try_to_load_from_cache knows what does not exist", read["absent"], "merges.txt")
        check("scan_cache_dir has no warning", read["warnings"] == [], read["warnings"])
        expected = [["tiny/lm", [COMMIT], ["main"]], ["tiny/sharded", [COMMIT], ["v1"]]]
        check("scan_cache_dir lists both", [r[:3] for r in read["repos"]] == expected, read["repos"])
        sums = sum(t.double().sum().item() for t in tensors.values())
        close = max(abs(read[k] - sums) for k in ["weights", "sharded"])
        check("from_pretrained loads whole and sharded weights offline", close < 1e-6 * abs(sums) + 1e-6, f"{close:.1e} of {sums:.3f}")
        check("AutoTokenizer loads offline", read["tokens"] > 0, read["tokens"])
    hub.seen.clear()
    again = python(
        "import json\nfrom huggingface_hub import hf_hub_download\n"
        f"print(json.dumps([hf_hub_download('tiny/lm', name) for name in {wanted!r}]))",
        **ours,
    )
    gets = [path for command, path in hub.seen if command == "GET"]
    check("an online download by Python fetches nothing again", len(again) == len(wanted) and not gets, gets)

    # Python's, read by us.
    theirs = dict(HF_HOME=str(folder / "theirs"), HF_ENDPOINT=hub.address)
    brought = python(
        "import json\nfrom huggingface_hub import snapshot_download\n"
        "print(json.dumps([snapshot_download('tiny/lm'), snapshot_download('tiny/sharded', revision='v1')]))",
        **theirs,
    )
    hub.seen.clear()
    pulled = limber("pull", "--offline", "hf:tiny/lm", "hf:tiny/sharded@v1", **theirs)
    if isinstance(brought, str):
        print(brought)
    check("limber finds what snapshot_download wrote", pulled.stdout.splitlines() == brought, pulled.stderr or brought)
    scene = "assets/demo/scene-1.png"
    base = limber("caption", scene, HF_HUB_OFFLINE="1").stdout
    for spec in ["hf:tiny/lm", "hf:tiny/sharded@v1"]:
        words = ["caption", "--offline", "--set", f"decoder.weights={spec}"]
        words += ["--set", f"decoder.tokenizer={ROOT / 'assets/demo/gptj'}"] if "sharded" in spec else []
        said = limber(*words, scene, **theirs)
        check(f"a caption through {spec} offline", bool(base) and said.stdout == base, (said.stdout or said.stderr).strip())
    check("offline asks nobody", hub.seen == [], hub.seen)

    # One lock.
    locked = dict(HF_HOME=str(folder / "locked"), HF_ENDPOINT=hub.address)
    etag = hashlib.sha256(lm["model.safetensors"]).hexdigest()
    lock = folder / "locked/hub/.locks/models--tiny--lm" / f"{etag}.lock"
    lock.parent.mkdir(parents=True)
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom huggingface_hub.utils import WeakFileLock\n"
        "with WeakFileLock(sys.argv[1]):\n    Path(sys.argv[2]).touch()\n    time.sleep(3)\n"
    )
    mark = folder / "held"
    holder = subprocess.Popen([sys.executable, "-c", code, str(lock), str(mark)], env=clean())
    for _ in range(600):
        if mark.exists():
            break
        time.sleep(0.1)
    waited = limber("pull", "hf:tiny/lm", **locked)
    was_held = "another process downloads it, waiting for" in waited.stderr
    check("the program waits for Python's lock", waited.returncode == 0 and was_held and holder.wait() == 0, "waited")

    # TLS.
    # Encrypted addresses lead to encrypted ones alone, so the storage has the same certificate.
    pem, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", pem, "-days", "2"]
        + ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        + ["-addext", "basicConstraints=critical,CA:FALSE"],
        check=True,
        capture_output=True,
    )
    secure = serve(repositories, (pem, key))
    tls = dict(HF_HOME=str(folder / "tls"), HF_ENDPOINT=secure.address)
    trusted = limber("pull", "hf:tiny/lm", SSL_CERT_FILE=str(pem), **tls)
    check("a hub behind TLS, its certificate in SSL_CERT_FILE", trusted.returncode == 0, trusted.stderr.strip().splitlines()[-1:])
    tls["HF_HOME"] = str(folder / "untrusted")
    env = {k: v for k, v in clean(**tls).items() if k not in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")}
    untrusted = subprocess.run([program, "pull", "hf:tiny/lm"], capture_output=True, text=True, env=env)
    refused = untrusted.returncode == 1 and "certificate" in untrusted.stderr.lower()
    check("refused where nobody vouches for it", refused, untrusted.stderr.strip()[:160])

    shutil.rmtree(folder)
    failed = [name for name, passed in checks.items() if not passed]
    print("FAIL: " + ", ".join(failed) if failed else f"PASS, {len(checks)} checks")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
