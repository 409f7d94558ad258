"""rbee-fetch, the program of rbee-fetch@.service: adds files to the store of models, and removes them."""
