"""What the image is made of: the release's base image, and wheels of all that it lacks.

python prepare_wheels.py image [RELEASE]          prints the base image
python prepare_wheels.py wheels IMAGE DIRECTORY   fills the directory
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from toolkit import releases
from toolkit.cli.progress import command_progress
from toolkit.errors import ToolkitError
from toolkit.pipeline.container_wheels import wheels_for
from toolkit.serving import container_engines

ROOT = Path(__file__).parents[2]


def base_image(release: str) -> str:
    """The newest image of a release, of the default one if none is named."""
    found = releases.release(release) if release else releases.default_release("pytorch")
    if found.container is None:
        sys.exit(f"error: no Triton image with {found.title} is known; set IMAGE=...")
    return found.container.name


def fill(image: str, directory: Path) -> None:
    """Wheels of the toolkit and of the packages that ``image`` lacks."""
    client = container_engines.require()
    image_id = container_engines.image_id(client, image)
    if image_id is None:
        sys.exit(f"error: {image} is not here\n hint: {client.engine} pull {image}")
    with command_progress(quiet=False) as progress:
        shelf = wheels_for(client, image_id, offline=False, progress=progress)
    directory.mkdir(parents=True, exist_ok=True)
    for wheel in shelf.glob("*.whl"):
        shutil.copy(wheel, directory)
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(directory), str(ROOT)]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)


def main(arguments: list[str]) -> None:
    """Do what the first word says."""
    if arguments[:1] == ["image"]:
        sys.stdout.write(base_image("".join(arguments[1:2])) + "\n")
    elif arguments[:1] == ["wheels"] and len(arguments) == 3:
        fill(arguments[1], Path(arguments[2]))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ToolkitError as error:
        sys.exit(f"error: {error}\n hint: {error.hint}" if error.hint else f"error: {error}")
