"""What a bucket refuses, and what it cannot do at the moment: words that say what to mend for the one, patience for the other."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

from animalclf.errors import UserError

T = TypeVar("T")
PATIENCE = 120.0  # seconds that a server which has answered before may fail without ending the work
LONGEST_PAUSE = 8.0  # seconds between two attempts
PASSING_CODES = {
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "RequestLimitExceeded",
    "RequestTimeout",
    "BandwidthLimitExceeded",
}
PASSING_STATUS = {429, 500, 502, 503, 504}
CREDENTIALS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile in ~/.aws (AWS_PROFILE), or a role on this machine"
)
_reached: set[str] = set()  # endpoints that have answered this process


def options() -> dict[str, Any]:
    """For the S3 file system: few quick attempts, since `persistent` goes on where they end. Raises UserError for an endpoint that is no address."""
    endpoint = _endpoint()
    if endpoint and "://" not in endpoint:
        raise UserError(
            f"AWS_ENDPOINT_URL: {endpoint!r} is no address; write it with its scheme, such as http://minio.example:9000"
        )
    if "AWS_MAX_ATTEMPTS" in os.environ or "AWS_RETRY_MODE" in os.environ:
        return {}
    return {"config_kwargs": {"retries": {"mode": "standard", "total_max_attempts": 3}}}


def persistent(url: str, action: Callable[[], T]) -> T:
    """`action()`, tried again while the server throttles, fails or cannot be reached, for PATIENCE seconds at most. A server that never answered
    this process gets no patience: its address is probably wrong.

    Raises UserError that says what to mend. FileNotFoundError of a file (not of a bucket) passes through.
    """
    import aiohttp
    import botocore.exceptions

    began, pause, told = time.monotonic(), 0.5, False
    while True:
        try:
            answer = action()
            _reached.add(_endpoint())
            return answer
        except (
            OSError,
            botocore.exceptions.BotoCoreError,
            botocore.exceptions.ClientError,
            aiohttp.ClientError,
        ) as error:
            if isinstance(error, FileNotFoundError) and _code(error) != "NoSuchBucket":
                _reached.add(_endpoint())
                raise
            if not passing(error) or time.monotonic() - began > PATIENCE:
                raise UserError(f"{url}: {explanation(error, url)}") from error
            if not told:
                _tell(f"{url}: {_why(error)}; trying again for up to {PATIENCE:.0f} s")
                told = True
        time.sleep(
            pause * random.uniform(0.5, 1.0)
        )  # many processes meet the same outage; they should not all come back at once
        pause = min(pause * 2, LONGEST_PAUSE)


def passing(error: BaseException) -> bool:
    """True for what may be over in a minute: throttling, a server that fails, a broken connection to one that has answered before."""
    import aiohttp
    import botocore.exceptions as boto

    status = (_response(error).get("ResponseMetadata") or {}).get("HTTPStatusCode")
    if status is not None:
        return status in PASSING_STATUS or _code(error) in PASSING_CODES
    links = _chain(error)
    if any(isinstance(link, boto.SSLError | boto.ProxyConnectionError) for link in links):
        return False
    if any(
        isinstance(link, boto.HTTPClientError | aiohttp.ClientError | ConnectionError | TimeoutError) for link in links
    ):
        return (
            _endpoint() in _reached or "RAY_RAYLET_PID" in os.environ
        )  # a Ray worker: its driver has been there before it
    return False


def explanation(error: BaseException, url: str = "") -> str:
    """What the server refused and what to do about it, in one line."""
    import botocore.exceptions as boto

    code = _code(error)
    if code in ("400", "403", "301") and url:  # an answer without a body: ask again in a way that has one
        error = _asked_with_words(url) or error
        code = _code(error)
    said = _why(error)
    if code in ("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"):
        return "the credentials have expired; get new ones (aws sso login, or a new session token) and run the same command again"
    if code in ("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "InvalidClientTokenId", "AuthFailure"):
        return f"the server does not know these credentials ({said}); {CREDENTIALS}"
    if code in (
        "PermanentRedirect",
        "AuthorizationHeaderMalformed",
        "IllegalLocationConstraintException",
        "301",
        "307",
    ):
        response = _response(error)
        found = (response.get("Error") or {}).get("Region") or (response.get("ResponseMetadata") or {}).get(
            "HTTPHeaders", {}
        ).get("x-amz-bucket-region")
        return f"the bucket is in another region ({said}); set AWS_REGION={found or 'the region of the bucket'}"
    if code == "NoSuchBucket":
        return "there is no such bucket; check its name, and AWS_ENDPOINT_URL where it is not on AWS"
    if code == "RequestTimeTooSkewed":
        return "this machine's clock is wrong by more than the server allows; set it right"
    if code in ("AccessDenied", "AllAccessDisabled", "403") or isinstance(error, PermissionError):
        return (
            f"access denied ({said}); the policy of these credentials must allow s3:ListBucket on the bucket, and s3:GetObject, s3:PutObject and "
            "s3:DeleteObject on what is in it"
        )
    links = _chain(error)
    if any(isinstance(link, boto.NoCredentialsError | boto.PartialCredentialsError) for link in links):
        return f"no AWS credentials found; {CREDENTIALS}"
    if any(isinstance(link, boto.ProfileNotFound | boto.TokenRetrievalError | boto.SSOError) for link in links):
        return f"the AWS profile gives no credentials ({said}); log in (aws sso login), or {CREDENTIALS}"
    if any(isinstance(link, boto.SSLError) for link in links):
        return f"no trusted connection to the storage server ({said}); check http:// or https:// in AWS_ENDPOINT_URL, and AWS_CA_BUNDLE"
    if any(isinstance(link, boto.HTTPClientError | ConnectionError | TimeoutError) for link in links):
        return f"the storage server cannot be reached ({said}); check AWS_ENDPOINT_URL and the network"
    if passing(error):
        return f"the storage server still fails after {PATIENCE:.0f} s ({said}); run the same command again later"
    return f"refused by the storage server: {said}"


def _endpoint() -> str:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


def _chain(error: BaseException) -> list[BaseException]:
    links: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in links:
        links.append(link)
        link = link.__cause__ or link.__context__
    return links


def _response(error: BaseException) -> dict[str, Any]:
    return next(
        (dict(found) for link in _chain(error) if isinstance(found := getattr(link, "response", None), dict)), {}
    )


def _code(error: BaseException) -> str:
    return str((_response(error).get("Error") or {}).get("Code", ""))


def _why(error: BaseException) -> str:
    said = _response(error).get("Error") or {}
    text = str(said.get("Message") or error or type(error).__name__).splitlines()[0]
    return f"{said['Code']}: {text}" if said.get("Code") and said["Code"] not in text else text


def _asked_with_words(url: str) -> BaseException | None:
    import s3fs
    from botocore.exceptions import ClientError

    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    try:
        s3fs.S3FileSystem(**options()).call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=1)
    except (OSError, ClientError) as error:
        return error
    return None


def _tell(text: str) -> None:
    from animalclf.utils.console import console

    console.print(text, markup=False, soft_wrap=True)
