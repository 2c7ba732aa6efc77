"""Sync against a server that speaks the published APIs: paging, trouble of all kinds, licences, keys kept quiet."""

from __future__ import annotations

import email.utils
import fcntl
import json
import time
from pathlib import Path

import pytest
from PIL import Image

from dpnb.cli import main
from dpnb.dataset.scan import Cancelled
from dpnb.errors import DatasetError
from dpnb.tools.aside import Finding, Move, carry_out
from dpnb.tools.sync import Sizes, collection_id, sync
from dpnb.tools.web import RateLimitError, Web, WebError, after_seconds, check_address, until_reset_seconds
from tests.dpnb.photo_host import CUT, KEY, PhotoHost, photo_host

SMALL = Sizes(60, 60)
UNSPLASH_PAGE, PEXELS_PAGE = "/collections/77/photos", "/v1/collections/abc"


@pytest.fixture
def host(monkeypatch):
    monkeypatch.setenv("UNSPLASH_ACCESS_KEY", KEY)
    monkeypatch.setenv("PEXELS_API_KEY", KEY)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with photo_host() as host:
        host.sizes.update({"11": (90, 70), "22": (70, 90), "33": (64, 64), "44": (50, 200), "55": (120, 80)})
        yield host


@pytest.fixture
def waits() -> list[float]:
    return []


def run(host: PhotoHost, folder: Path, name: str = "unsplash", waits: list[float] | None = None, **more):
    collection = "77" if name == "unsplash" else "abc"
    waited = [] if waits is None else waits
    web = Web(pause=waited.append)
    return sync(name, collection, folder, **{"api": host.address, "sizes": SMALL, "web": web, **more})


def raw(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "raw").iterdir())


@pytest.mark.parametrize("name", ["unsplash", "pexels"])
def test_a_whole_collection(host, tmp_path, name):
    done = run(host, tmp_path, name)
    names = [f"{name}-{one}" for one in ("11", "22", "33", "55")]
    assert raw(tmp_path) == sorted([f"{one}.jpg" for one in names] + [f"{one}.json" for one in names])
    assert (done.too_small, done.there, done.left, done.unfinished, done.refused) == (1, 0, [], "", [])
    assert [path.name for path in (tmp_path / "new").iterdir()] == [".lock"]
    record = json.loads((tmp_path / "raw" / f"{name}-22.json").read_text())
    assert {key: record[key] for key in ("host", "id", "collections", "width_px", "height_px", "description")} == {
        "host": name,
        "id": "22",
        "collections": ["77" if name == "unsplash" else "abc"],
        "width_px": 70,
        "height_px": 90,
        "description": "photo 22",
    }
    assert record["licence"] == f"{name.capitalize()} License"
    assert record["licence_page"].startswith("https://")
    assert record["author"] == ("Ann 22" if name == "unsplash" else "Bob 22")
    assert record["author_page"].startswith("https://")
    assert record["page"].startswith("https://")
    report = json.loads(next(tmp_path.glob(f"sync-{name}-*.json")).read_text())
    assert report["added"] == done.added
    assert str(done) == "4 new, 0 already there, 1 too small"


def test_a_second_sync_fetches_only_what_is_new(host, tmp_path):
    run(host, tmp_path)
    before = {name: (tmp_path / "raw" / name).stat().st_mtime_ns for name in raw(tmp_path)}
    host.asked.clear()
    host.sizes["66"] = (99, 99)
    done = run(host, tmp_path)
    assert (done.added, done.there) == (["unsplash-66.jpg"], 4)
    assert [path for path, _ in host.asked if path.startswith("/image/")] == ["/image/66?ixid=abc"]
    for name, written in before.items():
        assert (tmp_path / "raw" / name).stat().st_mtime_ns == written


def test_downloads_are_reported_to_unsplash_once(host, tmp_path):
    host.trouble["/photos/22/download"] = [(404, {})]
    run(host, tmp_path)
    run(host, tmp_path)
    for one in ("11", "22", "33", "55"):
        assert host.count(f"/photos/{one}/download") == 1
    assert all(key == f"Client-ID {KEY}" for path, key in host.asked if "/download" in path)


def test_a_report_that_failed_is_made_at_the_next_sync(host, tmp_path):
    host.trouble["/photos/11/download"] = [(503, {})] * 6
    done = run(host, tmp_path)
    assert done.refused[0].startswith("unsplash-11: its download could not be reported: 127.0.0.1:")
    host.asked.clear()
    assert run(host, tmp_path).refused == []
    assert sum("/download" in path for path, _ in host.asked) == 4


def test_what_has_left_the_collection_is_told_and_kept(host, tmp_path):
    run(host, tmp_path)
    del host.sizes["22"]
    done = run(host, tmp_path)
    assert done.left == ["unsplash-22"]
    assert "unsplash-22.jpg" in raw(tmp_path)


def test_what_a_person_took_out_stays_out(host, tmp_path):
    run(host, tmp_path)
    (tmp_path / "raw" / "unsplash-11.jpg").unlink()
    for suffix in ("jpg", "json"):
        name = f"raw/unsplash-22.{suffix}"
        info = (tmp_path / name).stat()
        carry_out(
            tmp_path, "duplicates", [Finding(name, "", "", (Move(name, None, (info.st_size, info.st_mtime_ns)),))]
        )
    done = run(host, tmp_path)
    assert (done.added, done.removed, done.there) == ([], 2, 2)


def test_a_picture_without_its_record_gets_one(host, tmp_path):
    run(host, tmp_path)
    record = tmp_path / "raw" / "unsplash-11.json"
    before = json.loads(record.read_text())
    record.unlink()
    run(host, tmp_path)
    assert json.loads(record.read_text()) | {"fetched": ""} == before | {"fetched": ""}


def test_a_photo_of_two_collections(host, tmp_path):
    run(host, tmp_path, "pexels")
    record = tmp_path / "raw" / "pexels-11.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"collections": ["other"]}))
    run(host, tmp_path, "pexels")
    assert json.loads(record.read_text())["collections"] == ["other", "abc"]


# --- sizes -----------------------------------------------------------------------------------------------------------


def test_larger_photos_are_scaled_by_the_host_but_never_below_the_least(host, tmp_path):
    host.sizes.clear()
    host.sizes.update({"1": (400, 300), "2": (400, 100), "3": (90, 80)})
    run(host, tmp_path, sizes=Sizes(200, 60, short_side_px=90))
    sizes = {path.stem: Image.open(path).size for path in (tmp_path / "raw").glob("*.jpg")}
    assert sizes == {"unsplash-1": (200, 150), "unsplash-2": (360, 90)}
    run(host, tmp_path / "p", "pexels", sizes=Sizes(60, 60, short_side_px=75))
    assert Image.open(tmp_path / "p" / "raw" / "pexels-1.jpg").size == (100, 75)
    asked = next(path for path, _ in host.asked if path.startswith("/image/1?auto"))
    assert "cs=tinysrgb" in asked


def test_a_photo_that_is_smaller_than_announced(host, tmp_path):
    image = host.image
    host.image = lambda one, query: image(one, {"w": ["20"], "h": ["20"]})
    done = run(host, tmp_path, most=1)
    assert done.refused == [
        "unsplash-11: is 20x20 pixels, smaller than the host announced and than is wanted",
    ]
    assert raw(tmp_path) == []


def test_so_many_at_most(host, tmp_path):
    done = run(host, tmp_path, most=1)
    assert done.added == ["unsplash-11.jpg"]
    assert done.unfinished == "3 more were not asked for"
    assert len(run(host, tmp_path).added) == 3


@pytest.mark.parametrize("name", ["least_width_px", "least_height_px", "short_side_px"])
def test_sizes_that_cannot_be(name):
    with pytest.raises(DatasetError, match=f"{name} = 0: expected 1 or more pixels"):
        Sizes(**{name: 0})


# --- trouble ---------------------------------------------------------------------------------------------------------


def test_trouble_that_passes(host, tmp_path, waits):
    """429 with and without Retry-After, 500, 503, answers and pictures that end early."""
    host.trouble[UNSPLASH_PAGE] = [(429, {"Retry-After": "3"}), (500, {}), CUT]
    host.trouble["/image/11"] = [CUT, (503, {}), CUT]
    host.trouble["/image/22"] = [(429, {})]
    done = run(host, tmp_path, waits=waits)
    assert len(done.added) == 4
    assert done.refused == []
    assert sum(waits) == pytest.approx(3 + 2 + 4 + 1 + 2 + 4 + 1)
    assert max(waits) <= 0.2, "it can be called off while it waits"
    for path in (tmp_path / "raw").glob("*.jpg"):
        Image.open(path).load()


def test_trouble_that_stays_with_one_photo(host, tmp_path, waits):
    host.trouble["/image/11"] = [(500, {})] * 6
    host.trouble["/image/22"] = [(404, {})]
    host.trouble["/image/33"] = [(200, {"Content-Type": "image/jpeg"}, b"<html>no picture</html>")]
    done = run(host, tmp_path, waits=waits)
    assert done.added == ["unsplash-55.jpg"]
    address = host.address.removeprefix("http://")
    assert done.refused == [
        f"unsplash-11: {address} answers 500 Internal Server Error. 6 tries failed: run it again later, it goes on "
        "where it was",
        f"unsplash-22: {address} answers 404 Not Found",
        "unsplash-33: not a picture that Pillow knows",
    ]
    assert raw(tmp_path) == ["unsplash-55.jpg", "unsplash-55.json"]
    assert len(run(host, tmp_path).added) == 3, "the next sync goes on"


def test_a_rate_limit_that_ends_soon_is_waited_for(host, tmp_path, waits):
    host.trouble[PEXELS_PAGE] = [(429, {"X-Ratelimit-Reset": str(int(time.time()) + 5)})]
    run(host, tmp_path, "pexels", waits)
    assert 3 < sum(waits) <= 5.2


@pytest.mark.parametrize(
    ("name", "path", "answer", "words"),
    [
        ("pexels", PEXELS_PAGE, (429, {"Retry-After": "7200"}), r"the rate limit is used up until 20\d\d-"),
        (
            "unsplash",
            UNSPLASH_PAGE,
            (403, {}, b"Rate Limit Exceeded"),
            r"used up \(on Unsplash it starts anew every hour",
        ),
    ],
)
def test_a_rate_limit_that_ends_late_is_told(host, tmp_path, name, path, answer, words):
    host.trouble[path] = [answer]
    with pytest.raises(RateLimitError, match=words):
        run(host, tmp_path, name)


def test_a_rate_limit_in_the_middle_keeps_what_is_there(host, tmp_path):
    host.remaining = ["0"]
    done = run(host, tmp_path)
    assert len(done.added) == 3
    assert done.unfinished == "unsplash: the rate limit is used up"
    assert done.left == [], "of a part of the list nothing can be said to have left"
    assert len(run(host, tmp_path).added) == 1


def test_a_wrong_key(host, tmp_path, monkeypatch):
    monkeypatch.setenv("UNSPLASH_ACCESS_KEY", "wrong-key")
    with pytest.raises(
        WebError, match=r"unsplash does not accept the key \(401\): look at UNSPLASH_ACCESS_KEY"
    ) as seen:
        run(host, tmp_path)
    assert "wrong-key" not in str(seen.value)
    assert host.count(UNSPLASH_PAGE) == 1, "another try is of no use"


def test_an_unknown_collection(host, tmp_path):
    with pytest.raises(WebError, match="unsplash has no collection '78' that this key may see: take its id from the"):
        sync("unsplash", "78", tmp_path, api=host.address)


def test_a_server_that_is_not_there(host, tmp_path, waits):
    web = Web(pause=waits.append, tries=2)
    with pytest.raises(WebError, match=r"127\.0\.0\.1:9 cannot be reached: Connection refused\. 2 tries failed"):
        sync("unsplash", "77", tmp_path, api="http://127.0.0.1:9", web=web)


@pytest.mark.parametrize(
    ("name", "answer", "words"),
    [
        ("unsplash", b"<html>", "does not answer in JSON: is it the address of the API?"),
        ("unsplash", b"{}", "does not answer with a list of photos: is it the address of the API?"),
        ("pexels", b"[]", "does not answer with a collection: is it the address of the API?"),
        ("pexels", b'{"media": [], "next_page": "https://elsewhere.example/x"}', "sends to another host for the next"),
    ],
)
def test_answers_that_make_no_sense(host, tmp_path, name, answer, words):
    host.trouble[UNSPLASH_PAGE if name == "unsplash" else PEXELS_PAGE] = [(200, {}, answer)]
    with pytest.raises(WebError, match=words):
        run(host, tmp_path, name)


def test_entries_that_are_no_photos(host, tmp_path):
    odd = [{"id": "1"}, None, {**host.pexels(1)[0]["media"][0], "type": "Video"}, host.pexels(1)[0]["media"][0]]
    odd.append({**odd[-1], "id": "../../evil"})
    host.trouble[PEXELS_PAGE] = [(200, {}, json.dumps({"media": odd}).encode())]
    done = run(host, tmp_path, "pexels")
    assert (done.odd, done.added) == (4, ["pexels-11.jpg"])
    assert not list(tmp_path.rglob("*evil*"))


def test_what_is_cut_off_leaves_nothing_behind(host, tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "unsplash-11.part").write_bytes(b"half of a picture from a killed sync")
    assert "unsplash-11.jpg" in run(host, tmp_path).added
    host.sizes["66"] = (99, 99)
    with pytest.raises(Cancelled):
        run(host, tmp_path, cancelled=lambda: any(path.startswith("/image/66") for path, _ in host.asked))
    assert not (tmp_path / "raw" / "unsplash-66.jpg").exists()
    assert [path.name for path in (tmp_path / "new").iterdir()] == [".lock"]


def test_two_at_once(host, tmp_path):
    (tmp_path / "new").mkdir()
    with (tmp_path / "new" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(DatasetError, match="another sync is at work in "):
            run(host, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError, match="file cannot be written: "):
        run(host, tmp_path / "file")


# --- keys ------------------------------------------------------------------------------------------------------------


def test_the_key_goes_to_the_api_alone_and_stands_nowhere(host, tmp_path, capfd):
    with photo_host() as other:
        other.sizes.update(host.sizes)
        host.trouble["/image/11"] = [(302, {"Location": f"{other.address}/image/11"})]
        host.trouble[UNSPLASH_PAGE] = [(500, {}, KEY.encode())]
        assert (
            main(
                [
                    "sync",
                    "unsplash",
                    "77",
                    "-o",
                    str(tmp_path),
                    "--min-width",
                    "60",
                    "--min-height",
                    "60",
                    "--api",
                    host.address,
                ]
            )
            == 0
        )
        assert other.asked == [("/image/11", "")]
    assert all(not key for path, key in host.asked if path.startswith("/image/"))
    assert KEY not in "".join(capfd.readouterr())
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


def test_a_redirect_does_not_carry_the_key_to_another_host(host, tmp_path):
    with photo_host() as other:
        host.trouble[UNSPLASH_PAGE] = [(302, {"Location": f"{other.address}{UNSPLASH_PAGE}"})]
        with pytest.raises(WebError, match="does not accept the key"):
            run(host, tmp_path)
        assert other.asked == [(UNSPLASH_PAGE, "")]


def test_keys_that_are_not_there(host, tmp_path, monkeypatch):
    monkeypatch.delenv("PEXELS_API_KEY")
    with pytest.raises(DatasetError, match="PEXELS_API_KEY is not set: pexels gives a key to who registers"):
        run(host, tmp_path, "pexels")
    monkeypatch.setenv("PEXELS_API_KEY", "two words")
    with pytest.raises(DatasetError, match="PEXELS_API_KEY holds white space or letters that no key has") as seen:
        run(host, tmp_path, "pexels")
    assert "two words" not in str(seen.value)
    assert host.asked == []


# --- small parts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host_name", "text", "found"),
    [
        ("unsplash", "1580860", "1580860"),
        ("unsplash", "https://unsplash.com/collections/1580860/a-name", "1580860"),
        ("unsplash", "https://api.unsplash.com/collections/eGv-x_1/photos", "eGv-x_1"),
        ("pexels", "https://www.pexels.com/collections/summer-days-9mp14cx/", "9mp14cx"),
        ("pexels", " 9mp14cx ", "9mp14cx"),
    ],
)
def test_ids_of_collections(host_name, text, found):
    assert collection_id(host_name, text) == found


@pytest.mark.parametrize("text", ["", "../x", "https://unsplash.com/photos/1", "a b"])
def test_what_is_no_collection(text):
    with pytest.raises(DatasetError, match="is no collection: give its id, or the address of its page"):
        collection_id("unsplash", text)


def test_hosts_and_addresses(tmp_path):
    with pytest.raises(DatasetError, match="there is no host 'flickr': choose one of unsplash, pexels"):
        sync("flickr", "1", tmp_path)
    with pytest.raises(WebError, match=r"http://example\.org is neither https nor on this machine: it is not asked"):
        check_address("http://example.org")
    assert check_address("https://example.org") == "https://example.org"


def test_what_servers_say_about_waiting():
    assert after_seconds({"Retry-After": "1.5"}) == 1.5
    later = email.utils.formatdate(time.time() + 100, usegmt=True)
    assert after_seconds({"Retry-After": later}) == pytest.approx(100, abs=3)
    assert after_seconds({"Retry-After": "soon"}) is None
    assert after_seconds({}) is None
    assert until_reset_seconds({"X-Ratelimit-Reset": "10"}) == 0
    assert until_reset_seconds({}) is None


def test_the_command(host, tmp_path, capsys):
    argv = [
        "sync",
        "pexels",
        "abc",
        "-o",
        str(tmp_path),
        "--min-width",
        "60",
        "--min-height",
        "60",
        "--api",
        host.address,
    ]
    host.trouble["/image/55"] = [(404, {})]
    assert main(argv) == 1
    out = capsys.readouterr().out
    assert "3 new, 0 already there, 1 too small, 1 failed" in out
    assert "  failed: pexels-55: " in out
    assert main([*argv, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["added"] == ["pexels-55.jpg"]
