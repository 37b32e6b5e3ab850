"""Errors of S3: retries for transient ones, and one line with the remedy for the others."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from animalclf.errors import UserError

T = TypeVar("T")
RETRY_SECONDS = 120.0
MAX_PAUSE = 8.0  # seconds between two attempts
WRITE_SECONDS, WRITE_SPEED = 60.0, 250e3  # of a write, and the slowest upload in bytes/s that counts as one
CONNECT_SECONDS, READ_SECONDS = 5.0, 15.0  # without an answer or a part of it, after which an attempt has failed
TRANSIENT_CODES = {
    "NoSuchUpload",  # of a repeated request to complete an upload, whose first answer was lost
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "RequestLimitExceeded",
    "RequestTimeout",
    "BandwidthLimitExceeded",
}
NOT_OF_A_FILE = {"NoSuchBucket", "NoSuchUpload"}  # codes that s3fs raises as FileNotFoundError
TRANSIENT_STATUS = {429, 500, 502, 503, 504}
CREDENTIALS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile in ~/.aws (AWS_PROFILE), or a role on this machine"
)
EXPIRED_CODES = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"}
UNKNOWN_CREDENTIALS_CODES = {
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "InvalidToken",
    "InvalidClientTokenId",
    "AuthFailure",
}
REGION_CODES = {
    "PermanentRedirect",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "301",
    "307",
}
_reached: set[str] = set()  # endpoints that have answered this process


def options() -> dict[str, object]:
    """Options of the S3 file system: few quick attempts, because `with_retries` repeats them. Raises UserError for an
    endpoint without a scheme."""
    endpoint = _endpoint()
    if endpoint and "://" not in endpoint:
        raise UserError(
            f"AWS_ENDPOINT_URL: {endpoint!r} is no address; write it with its scheme, such as http://minio.example:9000"
        )
    settings: dict[str, object] = {"connect_timeout": CONNECT_SECONDS, "read_timeout": READ_SECONDS}
    if "AWS_MAX_ATTEMPTS" not in os.environ and "AWS_RETRY_MODE" not in os.environ:
        settings["retries"] = {"mode": "standard", "total_max_attempts": 3}
    return {"config_kwargs": settings}


def with_retries(url: str, action: Callable[[], T]) -> T:
    """`action()`, retried for RETRY_SECONDS while the server throttles, fails or cannot be reached. A server that never
    answered this process is not retried: its address is probably wrong.

    Raises UserError with the remedy. FileNotFoundError of a file (not of a bucket) passes through.
    """
    import aiohttp
    import botocore.exceptions as boto

    started, pause, warned = time.monotonic(), 0.5, False
    while True:
        try:
            result = action()
            _reached.add(_endpoint())
            return result
        except (OSError, boto.BotoCoreError, boto.ClientError, aiohttp.ClientError) as error:
            if isinstance(error, FileNotFoundError) and _code(error) not in NOT_OF_A_FILE:
                _reached.add(_endpoint())
                raise
            if not is_transient(error) or time.monotonic() - started > RETRY_SECONDS:
                raise UserError(f"{url}: {error_message(error, url)}") from error
            if not warned:
                _warn(f"{url}: {_reason(error)}; trying again for up to {RETRY_SECONDS:.0f} s")
                warned = True
        time.sleep(pause * random.uniform(0.5, 1.0))  # jitter: many processes see the same outage
        pause = min(pause * 2, MAX_PAUSE)


def write_seconds(size: int) -> float:
    """Seconds after which a write of `size` bytes has failed. aiohttp waits without a limit for a server that never
    answers `Expect: 100-continue`."""
    return WRITE_SECONDS + size / WRITE_SPEED


def is_transient(error: BaseException) -> bool:
    """Whether a retry may succeed: after throttling, a server error, or a lost connection to a server that has answered
    before."""
    import aiohttp
    import botocore.exceptions as boto

    status = (_response(error).get("ResponseMetadata") or {}).get("HTTPStatusCode")
    if status is not None:
        return status in TRANSIENT_STATUS or _code(error) in TRANSIENT_CODES
    causes = _causes(error)
    if any(isinstance(cause, boto.SSLError | boto.ProxyConnectionError) for cause in causes):
        return False
    connection_errors = boto.HTTPClientError | aiohttp.ClientError | ConnectionError | TimeoutError
    if any(isinstance(cause, connection_errors) for cause in causes):
        return _endpoint() in _reached or "RAY_RAYLET_PID" in os.environ  # a Ray worker: its driver has reached it
    return False


def error_message(error: BaseException, url: str = "") -> str:
    """The server's reason and how to fix it, in one line."""
    code = _code(error)
    if code in ("400", "403", "301") and url:  # of a HEAD request, whose response has no body
        error = _error_with_body(url) or error
        code = _code(error)
    return _message_of_code(error, code) or _message_of_causes(error, url)


def _message_of_code(error: BaseException, code: str) -> str:
    """The message for an error code of the server; empty for other errors."""
    reason = _reason(error)
    if code in EXPIRED_CODES:
        return (
            "the credentials have expired; get new ones (aws sso login, or a new session token) and run the same "
            "command again"
        )
    if code in UNKNOWN_CREDENTIALS_CODES:
        return f"the server does not know these credentials ({reason}); {CREDENTIALS}"
    if code in REGION_CODES:
        return f"the bucket is in another region ({reason}); set AWS_REGION={_region(error) or 'the bucket region'}"
    if code == "NoSuchBucket":
        return "there is no such bucket; check its name, and AWS_ENDPOINT_URL if it is not on AWS"
    if code == "RequestTimeTooSkewed":
        return "this machine's clock is wrong by more than the server allows; set it right"
    if code in ("AccessDenied", "AllAccessDisabled", "403") or isinstance(error, PermissionError):
        return (
            f"access denied ({reason}); the policy of these credentials must allow s3:ListBucket on the bucket, and "
            "s3:GetObject, s3:PutObject and s3:DeleteObject on its objects"
        )
    return ""


def _message_of_causes(error: BaseException, url: str) -> str:
    import botocore.exceptions as boto

    reason, causes = _reason(error), _causes(error)
    if any(isinstance(cause, boto.NoCredentialsError | boto.PartialCredentialsError) for cause in causes):
        return f"no AWS credentials found; {CREDENTIALS}"
    if any(isinstance(cause, boto.ProfileNotFound | boto.TokenRetrievalError | boto.SSOError) for cause in causes):
        return f"the AWS profile gives no credentials ({reason}); log in (aws sso login), or {CREDENTIALS}"
    if any(isinstance(cause, boto.SSLError) for cause in causes):
        return (
            f"no trusted connection to the storage server ({reason}); check http:// or https:// in AWS_ENDPOINT_URL, "
            "and AWS_CA_BUNDLE"
        )
    if any(isinstance(cause, boto.HTTPClientError | ConnectionError | TimeoutError) for cause in causes):
        address = "the address" if url and not url.startswith("s3://") else "AWS_ENDPOINT_URL"
        return f"the server cannot be reached ({reason}); check {address} and the network"
    if is_transient(error):
        return (
            f"the storage server still fails after {RETRY_SECONDS:.0f} s ({reason}); run the same command again later"
        )
    return f"refused by the storage server: {reason}"


def _region(error: BaseException) -> str:
    """The bucket's region, if the server names it."""
    response = _response(error)
    headers = (response.get("ResponseMetadata") or {}).get("HTTPHeaders", {})
    return str((response.get("Error") or {}).get("Region") or headers.get("x-amz-bucket-region") or "")


def _endpoint() -> str:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


def _causes(error: BaseException) -> list[BaseException]:
    """The error and the chain of its causes."""
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in causes:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    return causes


def _response(error: BaseException) -> Mapping[str, Any]:
    """The server's response in botocore's form; empty without one."""
    responses = (getattr(cause, "response", None) for cause in _causes(error))
    return next((response for response in responses if isinstance(response, dict)), {})


def _code(error: BaseException) -> str:
    return str((_response(error).get("Error") or {}).get("Code", ""))


def _reason(error: BaseException) -> str:
    """The first line of the server's or the library's message, with the error code."""
    details = _response(error).get("Error") or {}
    text = str(details.get("Message") or str(error).strip() or _name(error)).splitlines()[0]
    return f"{details['Code']}: {text}" if details.get("Code") and details["Code"] not in text else text


def _name(error: BaseException) -> str:
    return "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__


def _error_with_body(url: str) -> BaseException | None:
    """The error of a listing, whose response has the cause; None if the listing succeeds."""
    import s3fs
    from botocore.exceptions import ClientError

    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    try:
        s3fs.S3FileSystem(**options()).call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=1)
    except (OSError, ClientError) as error:
        return error
    return None


def _warn(text: str) -> None:
    from animalclf.utils.console import show_line

    show_line(text)
