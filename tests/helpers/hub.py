"""A cache of the hub, and a client whose repositories are in it."""

import shutil
from fnmatch import fnmatch


def cache(hub, name, folder):
    """Put a folder into a cache, as a download does."""
    place = hub / f"models--{name.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("0" * 40)
    shutil.copytree(folder, place / "snapshots" / ("0" * 40))


class StandIn:
    """A client whose repositories are in the cache at once."""

    def __init__(self, hub, refuse=None):
        self.hub, self.refuse, self.created = hub, refuse, []

    def __call__(self):
        return self

    def create_repo(self, name, private, exist_ok):
        if self.refuse is not None:
            raise self.refuse
        self.created.append((name, private, exist_ok))
        return f"https://huggingface.co/{name}"

    def upload_folder(self, repo_id, folder_path, commit_message, delete_patterns):
        assert repo_id == self.created[-1][0]
        if (place := self.hub / f"models--{repo_id.replace('/', '--')}").exists():
            (there,) = (place / "snapshots").iterdir()
            gone = [path for path in there.iterdir() if any(fnmatch(path.name, part) for part in delete_patterns)]
            for path in gone:
                path.unlink()
            shutil.copytree(folder_path, there, dirs_exist_ok=True)
        else:
            cache(self.hub, repo_id, folder_path)
