"""What differs between clouds: what the handler of a function imports there, and how it starts."""

from __future__ import annotations

from dataclasses import dataclass

# What Lithops' part of a function imports anywhere, beside what a worker has anyway.
_LITHOPS = ("cloudpickle", "pika", "ps-mem", "psutil", "requests", "six", "tblib")


@dataclass(frozen=True)
class Backend:
    """A backend of Lithops.

    ``archive`` holds its handler; Lithops puts it beside the Dockerfile while it builds. Without one the
    handler is not part of the image. ``start`` are the last lines of the Dockerfile, and ``built`` is the
    command that makes the image.
    """

    where: str
    packages: tuple[str, ...]
    archive: str | None
    start: str
    built: str


BACKENDS = {
    "aws_lambda": Backend(
        "in the runtime that Lithops deploys on AWS Lambda",
        (*_LITHOPS, "awslambdaric", "boto3"),
        "lithops_lambda.zip",
        'ENTRYPOINT ["/usr/local/bin/python", "-m", "awslambdaric"]\nCMD ["entry_point.lambda_handler"]',
        "lithops runtime build -b aws_lambda -f Dockerfile {name}",
    ),
    "gcp_cloudrun": Backend(
        "in the runtime that Lithops deploys on Google Cloud Run",
        (*_LITHOPS, "flask", "google-cloud-storage", "gunicorn"),
        "lithops_cloudrun.zip",
        "ENV PORT=8080 CONCURRENCY=1 TIMEOUT=3600\n"
        'CMD ["sh", "-c", "exec python -m gunicorn --bind :$PORT --workers $CONCURRENCY --timeout $TIMEOUT '
        'lithopsproxy:proxy"]',
        "lithops runtime build -b gcp_cloudrun -f Dockerfile {name}",
    ),
    "localhost": Backend(
        "in containers of one machine, which Lithops' backend localhost starts",
        _LITHOPS,
        None,  # Lithops mounts its own
        'ENTRYPOINT ["/usr/local/bin/python3"]',
        "docker build -t {name} .",
    ),
}
