from __future__ import annotations


def test_a_first_promotion_is_release_1(site):
    run = site.approved_run("run-a")
    done = site.promote(run)
    view = site.fresh_reader().refresh()
    assert view.latest_release() == done.release
    assert (done.release.number, done.release.stable, view.version(1).lineage.run_id) == (1, 1, "run-a")
