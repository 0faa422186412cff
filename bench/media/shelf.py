"""A server with files in a bucket, and a collection that has not worked on them yet."""

import base64
import time

from server import Server
from texts import ENDED

POLL_SECONDS = 0.02
ROWS = 500


class Shelf:
    """As a context manager it runs a server on a fresh data directory."""

    def __init__(self, bench, name, kind, extractor, parameters):
        self._server = Server(bench.strata, bench.work / name)
        self._kind = kind
        self._extractor = {"feature_extractor_name": extractor, "version": "v1", "parameters": parameters}

    def __enter__(self):
        self._server.start()
        call = self._server.call
        schema = {"properties": {self._kind: {"type": self._kind}}}
        self._bucket = call("POST", "/v1/buckets", {"bucket_name": "files", "bucket_schema": schema})["bucket_id"]
        source = {"type": "bucket", "bucket_ids": [self._bucket]}
        made = {"collection_name": "made", "source": source, "feature_extractor": self._extractor}
        self._collection = call("POST", "/v1/collections", made)["collection_id"]
        return self

    def __exit__(self, *_):
        self._server.stop()

    def put(self, paths):
        """Uploads files; answers the ids of their objects."""
        return [self._put(path) for path in paths]

    def _put(self, path):
        data = base64.b64encode(path.read_bytes()).decode()
        blob = {"property": self._kind, "type": self._kind, "data": data, "metadata": {"filename": path.name}}
        return self._server.call("POST", f"/v1/buckets/{self._bucket}/objects", {"blobs": [blob]})["object_id"]

    def derive(self, objects):
        """Has objects worked on. Answers the seconds from the submission of the batch to its end."""
        batches = f"/v1/buckets/{self._bucket}/batches"
        batch = {"object_ids": objects, "collection_ids": [self._collection]}
        batch_id = self._server.call("POST", batches, batch)["batch_id"]
        begun = time.perf_counter()
        task = self._server.call("POST", f"{batches}/{batch_id}/submit", {})["task_id"]
        while (status := self._server.call("GET", f"/v1/tasks/{task}")["status"]) not in ENDED:
            time.sleep(POLL_SECONDS)
        seconds = time.perf_counter() - begun
        if status != "COMPLETED":
            raise RuntimeError(f"a batch of files ended as {status}")
        return seconds

    def documents(self):
        """All documents, those of a file in their order."""
        rows, cursor = [], ""
        while cursor is not None:
            path = f"/v1/collections/{self._collection}/documents/list?page_size={ROWS}{cursor and f'&cursor={cursor}'}"
            page = self._server.call("POST", path, {})
            rows += page["results"]
            cursor = page["pagination"].get("next_cursor") if page["results"] else None
        return rows
