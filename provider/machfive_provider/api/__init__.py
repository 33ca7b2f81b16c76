"""The MachFive API: models, requests and answers, retries, and two clients that move the bytes."""
