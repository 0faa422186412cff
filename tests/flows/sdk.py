"""The whole path through the official SDK: sdk.py (high_level | generated) URL KEY."""

import sys
import time

import mixpeek
from mixpeek._client.client import MixpeekAPIError

TEXTS = {
    "Weather": "Rain fell all night. The sun came back in the morning.",
    "Music": "A violin has four strings. A trumpet is a brass instrument played by blowing.",
}
EXTRACTOR = {
    "feature_extractor_name": "text_extractor",
    "version": "v1",
    "parameters": {"extractor_type": "text_extractor", "split_by": "sentences", "chunk_size": 1},
    "input_mappings": {"text": "content"},
    "field_passthrough": [{"source_path": "title"}],
}
SCHEMA = {"properties": {"title": {"type": "string"}, "content": {"type": "text"}}}


def stages(feature_uri):
    search = {
        "feature_uri": feature_uri,
        "query": {"input_mode": "text", "value": "{{INPUT.query}}"},
        "top_k": 10,
    }
    parameters = {"searches": [search], "final_top_k": 5}
    config = {"stage_id": "feature_search", "parameters": parameters}
    return [{"stage_name": "search", "stage_type": "filter", "config": config}]


def wait_until(what, ask, seconds=60):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := ask():
            return answer
        time.sleep(0.05)
    raise SystemExit(f"waited {seconds} s in vain for {what}")


def has_ended(status):
    return status.upper() in ("COMPLETED", "COMPLETED_WITH_ERRORS", "FAILED", "CANCELED")


def check(condition, what):
    if not condition:
        raise SystemExit(f"failed: {what}")


def high_level(url, key):
    plain = mixpeek.Mixpeek(api_key=key, base_url=url + "/v1")
    namespace = plain.namespaces.create(
        namespace_name="sdk-high-level",
        feature_extractors=[{"feature_extractor_name": "text_extractor", "version": "v1"}],
    )
    # The namespace by name, as people write it.
    client = mixpeek.Mixpeek(api_key=key, base_url=url + "/v1", namespace="sdk-high-level")
    check(client.namespaces.get(namespace.namespace_id).namespace_name == "sdk-high-level", "namespace is found")

    bucket = client.buckets.create(bucket_name="articles", bucket_schema=SCHEMA)
    collection = client.collections.create(
        collection_name="sentences",
        feature_extractor=EXTRACTOR,
        source={"type": "bucket", "bucket_ids": [bucket.bucket_id]},
    )
    made = [
        client.buckets.upload(bucket.bucket_id, data=text, blob_property="content", blob_type="text", title=title)
        for title, text in TEXTS.items()
    ]
    listed = client.buckets.list_objects(bucket.bucket_id)
    check({o.object_id for o in listed.results} == {o.object_id for o in made}, "objects are listed")

    triggered = client.collections.trigger(collection.collection_id)
    status = wait_until(
        "the task to end", lambda: (s := client.tasks.get(triggered.task_id).status) and has_ended(s) and s
    )
    check(status == "COMPLETED", f"the task ended as {status}")
    batch = client.batches.get(bucket.bucket_id, triggered.batch_id)
    check(batch.status == "COMPLETED", f"the batch ended as {batch.status}")

    documents = client.documents.list(collection.collection_id).results
    check(len(documents) == 4, f"{len(documents)} documents instead of 4")
    one = client.documents.get(collection.collection_id, documents[0].document_id)
    check(one.root_bucket_id == bucket.bucket_id, "the document knows its bucket")

    feature_uri = client.collections.get(collection.collection_id).vector_indexes[0].feature_uri
    retriever = client.retrievers.create(
        retriever_name="finder",
        stages=stages(feature_uri),
        collection_identifiers=[collection.collection_id],
        input_schema={"query": {"type": "string", "required": True}},
    )
    answer = client.retrievers.execute(retriever.retriever_id, inputs={"query": "brass wind instrument"})
    check("trumpet" in answer.results[0].text, f"the best hit is {answer.results[0]}")
    check(answer.results[0].root_object_id == made[1].object_id, "the hit leads back to its object")
    check(client.search("brass wind instrument", collection=collection.collection_id) is not None, "plain search")

    try:
        client.buckets.get("bkt_does_not_exist")
        check(False, "a missing bucket raises")
    except MixpeekAPIError as error:
        check(error.status == 404, f"a missing bucket raises {error.status}")
    client.retrievers.delete(retriever.retriever_id)
    client.documents.delete(collection.collection_id, documents[0].document_id)
    check(len(client.documents.list(collection.collection_id).results) == 3, "a deleted document is gone")


def brought_vectors(url, key):
    client = mixpeek.Mixpeek(api_key=key, base_url=url + "/v1", namespace="brought")
    made = client.namespaces.create(
        namespace_id="brought", vector_configs=[{"name": "plane", "dimension": 2, "metric": "cosine"}]
    )
    check(made.mode == "standalone", f"the namespace is {made.mode}")
    documents = [
        {"document_id": "east", "vectors": {"plane": [1.0, 0.0]}, "payload": {"title": "East"}},
        {"document_id": "north", "vectors": {"plane": [0.0, 1.0]}, "payload": {"title": "North"}},
    ]
    done = client.namespaces.documents.upsert(namespace_id="brought", documents=documents)
    check(done.inserted == 2 and list(done.document_ids) == ["east", "north"], f"the answer is {done}")
    answer = client.search(queries=[{"vector_name": "plane", "vector": [0.9, 0.1]}])
    check(answer.results[0].document_id == "east", f"the best hit is {answer.results[0]}")
    check(client.namespaces.promote("brought").mode == "managed", "the namespace is promoted")


def generated(url, key):
    def client(namespace=None):
        configuration = mixpeek.Configuration(host=url, access_token=key)
        if namespace:
            configuration.api_key["NamespaceHeader"] = namespace
        return mixpeek.ApiClient(configuration)

    me = mixpeek.AccountApi(client()).whoami_me()
    check(me.organization_id, "whoami names the organization")
    namespace = mixpeek.NamespacesApi(client()).create_namespace(
        mixpeek.CreateNamespaceRequest.from_dict(
            {
                "namespace_name": "sdk-generated",
                "feature_extractors": [{"feature_extractor_name": "text_extractor", "version": "v1"}],
            }
        )
    )
    api = client(namespace.namespace_id)

    bucket = mixpeek.BucketsApi(api).create_bucket(
        mixpeek.BucketCreateRequest.from_dict({"bucket_name": "articles", "bucket_schema": SCHEMA})
    )
    objects = mixpeek.BucketObjectsApi(api)
    made = []
    for title, text in TEXTS.items():
        blob = {"property": "content", "type": "text", "data": text}
        request = mixpeek.CreateObjectRequest.from_dict({"title": title, "blobs": [blob]})
        made.append(objects.create_object_buckets(bucket.bucket_id, request))
    check(all(o.object_id for o in made), "objects have ids")

    collections = mixpeek.CollectionsApi(api)
    collection = collections.create_collection(
        mixpeek.CreateCollectionRequest.from_dict(
            {
                "collection_name": "sentences",
                "source": {"type": "bucket", "bucket_ids": [bucket.bucket_id]},
                "feature_extractor": EXTRACTOR,
            }
        )
    )
    batches = mixpeek.BucketBatchesApi(api)
    request = {"object_ids": [o.object_id for o in made], "collection_ids": [collection.collection_id]}
    batch = batches.create_batch_buckets_batches(bucket.bucket_id, mixpeek.CreateBatchRequest.from_dict(request))
    task = batches.submit_batch_buckets_batches(bucket.bucket_id, batch.batch_id)
    tasks = mixpeek.TasksApi(api)
    status = wait_until("the task to end", lambda: (s := tasks.get_task(task.task_id).status.value) and has_ended(s) and s)
    check(status == "COMPLETED", f"the task ended as {status}")
    batch = batches.get_batch_buckets_batches(bucket.bucket_id, batch.batch_id)
    check(batch.status.value == "COMPLETED", f"the batch ended as {batch.status}")

    listed = mixpeek.CollectionDocumentsApi(api).list_documents(collection.collection_id)
    check(len(listed.results) == 4, f"{len(listed.results)} documents instead of 4")
    described = collections.get_collection(collection.collection_id)
    retrievers = mixpeek.RetrieversApi(api)
    retriever = retrievers.create_retriever(
        mixpeek.CreateRetrieverRequest.from_dict(
            {
                "retriever_name": "finder",
                "collection_identifiers": [collection.collection_id],
                "input_schema": {"query": {"type": "string", "required": True}},
                "stages": stages(described.vector_indexes[0].feature_uri),
            }
        )
    )
    answer = retrievers.execute_retriever(
        retriever.retriever_id, mixpeek.ExecuteRetrieverRequest.from_dict({"inputs": {"query": "brass wind instrument"}})
    )
    check("trumpet" in answer.results[0]["text"], f"the best hit is {answer.results[0]}")
    check(answer.results[0]["root_object_id"] == made[1].object_id, "the hit leads back to its object")
    try:
        retrievers.get_retriever("ret_does_not_exist")
        check(False, "a missing retriever raises")
    except mixpeek.exceptions.NotFoundException:
        pass


{"high_level": high_level, "brought_vectors": brought_vectors, "generated": generated}[sys.argv[1]](sys.argv[2], sys.argv[3])
print("ok")
