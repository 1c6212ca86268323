"""Images: found below their folder only, measured before they are decoded, decoded as Data-Juicer does."""

import numpy as np
import pytest
from hard_pairs import bomb, odd_images
from pairs import write_image
from PIL import ExifTags, Image, ImageFile, ImageOps

from bettersynth.configuration.pool import Pool, Reading
from bettersynth.core.layout import Layout
from bettersynth.pool.images import (
    MOST_SIDE,
    ImageProblem,
    ImageReason,
    ImageRoots,
    check_image,
    open_image,
    open_pixels,
    resolve,
)

LIMIT = Reading()


def reason(function, *arguments):
    with pytest.raises(ImageProblem) as caught:
        function(*arguments)
    return caught.value.reason


@pytest.mark.parametrize(
    "path",
    [
        "",
        "../secret.png",
        "images/../../secret.png",
        "images\\..\\..\\secret.png",
        "/etc/passwd",
        "\\\\host\\share\\a.png",
        "C:\\a.png",
        "http://example.org/a.png",
        "file:///etc/passwd",
        "//example.org/a.png",
        "zip://a.png::b.zip",
        "a.png::b.zip",
        "a\0.png",
    ],
)
def test_paths_that_leave_the_folder_are_refused(tmp_path, path):
    assert reason(resolve, tmp_path, path) == ImageReason.PATH


def test_a_link_out_of_the_folder_is_refused_and_a_linked_folder_is_not(tmp_path):
    write_image(tmp_path / "elsewhere" / "a.png")
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "a.png").symlink_to(tmp_path / "elsewhere" / "a.png")
    (inside / "folder").symlink_to(tmp_path / "elsewhere")
    assert reason(resolve, inside, "a.png") == ImageReason.PATH
    assert reason(resolve, inside, "folder/a.png") == ImageReason.PATH

    other = write_image(tmp_path / "far" / "images" / "b.png")
    (tmp_path / "far" / "deep").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "far" / "deep")
    assert resolve(tmp_path / "link" / ".." / "images", "b.png") == other
    (tmp_path / "linked").symlink_to(tmp_path / "elsewhere")
    assert resolve(tmp_path / "linked", "a.png") == tmp_path / "elsewhere" / "a.png"


def test_names_that_only_look_odd_are_found(tmp_path):
    for name in ("a..b.png", "00/été 1.png", "semi;colon.png"):
        write_image(tmp_path / name)
        assert check_image(resolve(tmp_path, name), LIMIT) == (24, 16)


def test_unusable_headers_have_their_own_reasons(tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "page.jpg").write_text("<html>404</html>")
    (tmp_path / "short.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    write_image(tmp_path / "picture.ppm")
    (tmp_path / "folder.jpg").mkdir()
    expected = {
        "absent.jpg": ImageReason.MISSING,
        "folder.jpg": ImageReason.MISSING,
        "empty.jpg": ImageReason.HEADER,
        "short.png": ImageReason.HEADER,
        "page.jpg": ImageReason.FORMAT,
        "picture.ppm": ImageReason.FORMAT,
    }
    assert {name: reason(check_image, tmp_path / name, LIMIT) for name in expected} == expected


def test_a_format_is_known_by_its_bytes_not_its_name(tmp_path):
    write_image(tmp_path / "a.png").rename(tmp_path / "a.jpg")
    assert open_image(tmp_path / "a.jpg", LIMIT).size == (24, 16)


@pytest.mark.parametrize("size", [(50_000, 50_000), (10_001, 10_000)])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_too_large_an_image_is_refused_by_its_header(tmp_path, size):
    path = bomb(tmp_path / "bomb.png", *size)
    assert reason(check_image, path, LIMIT) == ImageReason.TOO_LARGE
    assert reason(open_image, path, LIMIT) == ImageReason.TOO_LARGE


def test_the_limit_is_ours_not_pillows(tmp_path):
    assert check_image(bomb(tmp_path / "wide.png", 20_000, 20_000), Reading(400_000_000)) == (20_000, 20_000)


def test_an_image_cut_short_is_refused_even_after_data_juicer_allowed_it(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / "cut.jpg"
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:-500])
    ImageFile.LOAD_TRUNCATED_IMAGES = True  # as importing data_juicer does
    assert check_image(path, LIMIT) == (64, 64)
    assert reason(open_image, path, LIMIT) == ImageReason.UNREADABLE


def test_every_kind_of_image_is_decoded_as_data_juicer_decodes_it(tmp_path):
    from data_juicer.utils.mm_utils import load_image

    for path in odd_images(tmp_path):
        ours = open_image(path, LIMIT._replace(deep_grey="clip"))
        assert ours.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(load_image(str(path))), err_msg=path.name)
    assert open_image(tmp_path / "turned.jpg", LIMIT).size == (20, 30)
    assert open_image(tmp_path / "turned by XMP.jpg", LIMIT).size == (20, 30)


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.jpg"])
@pytest.mark.parametrize("exif", [b"Exif\0\0no TIFF at all", b"text", b"Exif\0\0II*\0\xff\xff\xff\xff"])
def test_damaged_exif_data_turn_nothing(tmp_path, name, exif):
    """As PNG and WebP files of some phones and editors have them; every reader sees the same upright picture."""
    path = write_image(tmp_path / name, exif=exif)
    assert check_image(path, LIMIT, decode=True) == (24, 16)
    image, pixels = outcome(path)
    plain = write_image(tmp_path / f"plain {name}")
    assert np.array_equal(image, pixels) and np.array_equal(image, open_pixels(plain, LIMIT))
    assert np.array_equal(image, open_image(path.read_bytes(), LIMIT))


@pytest.mark.parametrize("value", range(10))
def test_every_orientation_is_followed_as_pillow_does(tmp_path, value):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (5, 7, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = value
    for name in ("a.png", "a.tiff"):
        picture.save(tmp_path / name, exif=exif)
        with Image.open(tmp_path / name) as opened:
            expected = np.asarray(ImageOps.exif_transpose(opened))
        assert np.array_equal(open_image(tmp_path / name, LIMIT), expected), name


def test_deep_grey_is_scaled_or_clipped_as_asked(tmp_path):
    steps = np.linspace(0, 1, 16)[None].repeat(3, 0)
    eight = (steps * 255).round()
    deep = {
        "sixteen.png": (steps * 65_535).round().astype(np.uint16),
        "integers.tiff": (steps * (2**31 - 1)).astype(np.int32),
        "few integers.tiff": (steps * 65_535).round().astype(np.int32),
        "unit floats.tiff": steps.astype(np.float32),
        "large floats.tiff": (steps * 65_535).astype(np.float32),
        "byte floats.tiff": eight.astype(np.float32),
    }
    for name, values in deep.items():
        Image.fromarray(values).save(tmp_path / name)
        scaled = open_pixels(tmp_path / name, LIMIT)[..., 0].astype(int)
        white = 127 if name == "integers.tiff" else 255  # half of what its mode holds
        assert np.abs(scaled - steps * white).max() <= 1, name
        assert check_image(tmp_path / name, LIMIT, decode=True) == (16, 3)
    clipped = open_pixels(tmp_path / "sixteen.png", LIMIT._replace(deep_grey="clip"))
    assert (clipped[:, 1:] == 255).all()
    holes = np.array([[np.nan, np.inf, -np.inf, -1, 0, 1]], np.float32)
    Image.fromarray(holes).save(tmp_path / "holes.tiff")
    assert open_pixels(tmp_path / "holes.tiff", LIMIT)[0, :, 0].tolist() == [0, 255, 0, 0, 0, 255]


def test_a_side_longer_than_a_jpeg_can_be_is_refused(tmp_path):
    assert check_image(bomb(tmp_path / "long.png", MOST_SIDE, 2), LIMIT) == (MOST_SIDE, 2)
    assert reason(check_image, bomb(tmp_path / "longer.png", 1, MOST_SIDE + 1), LIMIT) == ImageReason.TOO_LARGE


def outcome(path):
    """The pixels of `open_image` and of `open_pixels`, or the reason of either."""

    def one(function):
        try:
            return np.asarray(function(path, LIMIT))
        except ImageProblem as problem:
            return problem.reason

    return one(open_image), one(open_pixels)


def jpegs():
    """Every way in which Pillow writes a JPEG: name, size, mode and options."""
    for size in [(1, 1), (7, 5), (33, 16), (70, 61)]:
        for subsampling in ("4:4:4", "4:2:2", "4:2:0"):
            yield f"{subsampling}", size, "RGB", {"subsampling": subsampling}
            yield f"{subsampling}, progressive", size, "RGB", {"subsampling": subsampling, "progressive": True}
        yield "grey", size, "L", {}
        yield "grey, progressive", size, "L", {"progressive": True}
        yield "rgb", size, "RGB", {"keep_rgb": True}
        yield "cmyk", size, "CMYK", {}
        yield "low quality", size, "RGB", {"quality": 3}
        yield "with restarts", size, "RGB", {"restart_marker_blocks": 1, "quality": 100}


@pytest.mark.parametrize(("name", "size", "mode", "options"), jpegs())
def test_pixels_are_those_of_the_image(tmp_path, name, size, mode, options):
    noise = np.random.default_rng(0).integers(0, 255, (*reversed(size), 3), dtype=np.uint8)
    path = tmp_path / "a.jpg"
    Image.fromarray(noise).convert(mode).save(path, "JPEG", **options)
    image, pixels = outcome(path)
    assert pixels.dtype == np.uint8 and np.array_equal(image, pixels)


def test_pixels_of_every_other_kind_of_image_are_those_of_the_image(tmp_path):
    for path in odd_images(tmp_path):
        image, pixels = outcome(path)
        assert np.array_equal(image, pixels), path.name


@pytest.mark.parametrize("progressive", [False, True])
def test_damage_is_judged_alike(tmp_path, progressive):
    """Cut short anywhere, or with a byte changed: the same pixels, or the same reason."""
    chance = np.random.default_rng(0)
    path = tmp_path / "a.jpg"
    Image.fromarray(chance.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(path, progressive=progressive)
    whole = path.read_bytes()
    seen = {"equal": 0, "refused": 0}
    for number in range(300):
        place = int(chance.integers(2, len(whole)))
        changed = bytes([chance.integers(256)]) + whole[place + 1 :] if number % 2 else b""
        path.write_bytes(whole[:place] + changed)
        image, pixels = outcome(path)
        if isinstance(image, np.ndarray):
            assert np.array_equal(image, pixels), (number, place)
            seen["equal"] += 1
        else:
            assert image == pixels, (number, place)
            seen["refused"] += 1
    assert min(seen.values()) > 50


def test_image_roots_tell_the_pool_from_a_redrawer(tmp_path):
    layout = Layout(tmp_path / "results" / "c")
    pool = Pool.model_validate({"files": [{"path": "x.jsonl", "name": "x"}], "images": str(tmp_path / "data")})
    roots = ImageRoots(pool, layout)
    write_image(tmp_path / "data" / "a.png", colour="red")
    write_image(layout.source_images("drawn") / "a.png", colour="blue")
    assert roots.open("pool", "a.png").getpixel((0, 0)) == (255, 0, 0)
    assert roots.open("drawn", "a.png").getpixel((0, 0)) == (0, 0, 255)
    assert roots.from_pool("pool", "a.png") == "a.png"
    from_pool = roots.from_pool("drawn", "a.png")
    assert from_pool == "../results/c/sources/drawn/images/a.png"
    assert (tmp_path / "data" / from_pool).samefile(layout.source_images("drawn") / "a.png")
    elsewhere = tmp_path / "far" / "away"
    elsewhere.mkdir(parents=True)
    (tmp_path / "link").symlink_to(elsewhere)
    linked = ImageRoots(pool.model_copy(update={"images": str(tmp_path / "link")}), layout).from_pool("drawn", "a.png")
    assert (tmp_path / "link" / linked).samefile(layout.source_images("drawn") / "a.png")
    assert reason(roots.path, "drawn", "../../../secret") == ImageReason.PATH
