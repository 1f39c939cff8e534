"""Trains, builds a gallery and searches over HTTP, against a service that `reid up` runs.

    REID_API=http://127.0.0.1:8000 REID_KEY=$(cat reid-data/admin.key) python examples/search_over_http.py people

The argument is the data set's folder below a data root of the service.
"""

import os
import sys
import time

import httpx

api = httpx.Client(base_url=os.environ["REID_API"], headers={"X-API-Key": os.environ["REID_KEY"]}, timeout=60)


def post(route: str, **body: object) -> dict:
    return api.post(route, json=body).raise_for_status().json()


def wait(job: str) -> dict:
    while (shown := api.get(f"/jobs/{job}").raise_for_status().json())["state"] not in ("succeeded", "failed"):
        time.sleep(0.5)
    assert shown["state"] == "succeeded", shown["error"]
    return shown


dataset = post("/datasets", name="people", path=sys.argv[1])
wait(dataset["job"])
settings = {
    "backbone": "resnet18",
    "image": {"height": 128, "width": 64},
    "batch": {"identities": 8},
    "schedule": {"epochs": int(sys.argv[2]) if len(sys.argv) > 2 else 12, "base_lr": 1e-3},
}
training = post(
    "/jobs", kind="train", method="bnneck", dataset="people", model_name="first", init_from=None, settings=settings
)
wait(training["id"])
gallery = post("/galleries", name="lobby", model="first", dataset={"id": "people", "split": "gallery"})
wait(gallery["job"])

query = api.get("/datasets/people/images", params={"split": "query", "limit": 1}).json()["items"][0]
answer = api.get("/search", params={"gallery": "lobby", "image_id": query["id"], "top_k": 5}).raise_for_status().json()
print(f"query: identity {query['identity']}")
for result in answer["results"]:
    print(f"{result['score']:.3f}  identity {result['identity']}  camera {result['camera']}")
