"""Why the hub refuses, in a few words with a remedy, out of its client's exceptions and those that wrap them."""

from huggingface_hub import errors
from huggingface_hub.errors import HfHubHTTPError

from mgpo.errors import chain_of

PRIVATE = "there is no such repository on the hub, or it is private: `hf auth login` as someone who may see it"
UNREACHED = (ConnectionError, TimeoutError, errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError)


def refusal(error: BaseException) -> str | None:
    """What the hub refused, and what to do; None where nothing in an exception's chain is a refusal of the hub's."""
    chain = list(chain_of(error))
    for kind, said in (
        (errors.LocalTokenNotFoundError, "no token is known here: `hf auth login`, or set HF_TOKEN"),
        (errors.GatedRepoError, "it is gated: ask for access on its page, then `hf auth login`"),
        (errors.RepositoryNotFoundError, PRIVATE),
        (errors.HFValidationError, "this is no name of a repository, such as owner/name"),
    ):
        if any(isinstance(part, kind) for part in chain):
            return said
    for part in chain:
        if isinstance(part, HfHubHTTPError) and part.response is not None:
            return _by_status(part.response.status_code)
    transport = getattr(errors, "HTTPError", ConnectionError)  # its client's own, whichever it is
    if any(isinstance(part, (*UNREACHED, transport)) for part in chain):
        return "the hub can't be reached from here"
    return None


def _by_status(status: int) -> str:
    if status == 401:
        return "the hub does not know this token: `hf auth login` again, or set another HF_TOKEN"
    if status == 403:
        return "the token here may not do that: take one that may write to this repository"
    return f"the hub answered with status {status}: try again later"
