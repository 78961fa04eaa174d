"""Which proxy: the proxies there are, how well they do, which is next, and which one a session key keeps."""
