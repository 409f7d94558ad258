"""rbee-fetch, the program of rbee-fetch@.service: fetches files into the store of models and removes them."""
