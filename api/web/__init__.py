"""The reviewer's page: rendered on the server, with little script and no network of its own."""
