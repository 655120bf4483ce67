"""Three SDKs as they come, on requests, httpx and httpx2, under a limit unknown to them."""

import os
import subprocess
import sys
from pathlib import Path

from ratekit.testing import ApiServer

# What somebody else wrote: nothing of it is for ratekit.
JOB = """
import os
from concurrent.futures import ThreadPoolExecutor
import notion_client, openai, stripe
site = os.environ["SITE"]
over = stripe.RequestsClient()
pay = stripe.StripeClient("sk_test", base_addresses={"api": site}, http_client=over)
notes = notion_client.Client(auth="s", base_url=site)
model = openai.OpenAI(api_key="s", base_url=site)
calls = [lambda: pay.v1.customers.retrieve("1"), notes.users.me, lambda: model.models.retrieve("m")]
with ThreadPoolExecutor(12) as pool:
    print(len(list(pool.map(lambda call: call(), calls * 50))))
"""


def test_sdks_obey_a_limit_that_they_do_not_know(tmp_path: Path) -> None:
    """No call is lost, and at most one in a hundred is refused."""
    (tmp_path / "job.py").write_text(JOB)
    with ApiServer(50, process=True) as server:
        done = subprocess.run(
            [sys.executable, "-m", "ratekit", "run", "--stats", "job.py"],
            capture_output=True,
            text=True,
            check=False,
            timeout=50,
            cwd=tmp_path,
            env={
                **os.environ,
                "SITE": server.url,
                "RATEKIT_LIMIT": "50/second",
                "RATEKIT_RETRY_ATTEMPTS": "4",
                "RATEKIT_LOG": "info",
            },
        )
        seen = server.stats()
    assert (done.returncode, done.stdout) == (0, "150\n"), done.stderr
    assert seen.ok == 150
    assert seen.refused <= 1
    # All three went through it.
    assert f"{server.url}    150" in done.stderr
