"""A page for a trained network: `python -m unrolled serve`.

`kinds` has a module for each kind of network, whose routes call the prediction functions. `service` runs them one at a
time within limits, `guard` refuses requests that don't belong here, `app` combines them, and `server` listens. `page`
has the files that the browser loads. FastAPI and uvicorn are imported by functions alone.
"""
