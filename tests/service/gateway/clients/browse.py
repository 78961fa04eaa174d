"""browser-use as its users have it: `python browse.py <gateway> <site> <leases>`; says what it read as JSON."""

import asyncio
import json
import sys

from browser_use import BrowserSession


async def main() -> None:
    gateway, site, leases = sys.argv[1], sys.argv[2], int(sys.argv[3])
    forms = [gateway.replace("ws://", "http://"), gateway]
    seen = []
    for number in range(leases):
        session = BrowserSession(cdp_url=forms[number % 2])
        await session.start()
        await session.navigate_to(site)
        state = await session.get_browser_state_summary()
        seen.append(
            {
                "url": state.url,
                "read": state.dom_state.llm_representation(),
                "picture": len(state.screenshot or ""),
            }
        )
        await session.stop()
    print(json.dumps(seen))


asyncio.run(main())
