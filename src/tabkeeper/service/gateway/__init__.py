"""The CDP gateway: any Playwright or Puppeteer client, in any language, leases a browser by connecting to one address.

It lets a client in by the pool's own admission, carries what both sides say, and undoes what the client did. `wish`
reads the address, `custody` knows what can be undone, `relay` carries, `gateway` puts it together.
"""
