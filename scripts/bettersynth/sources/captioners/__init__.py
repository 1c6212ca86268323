"""Captioners: models that write captions for images, on transformers or, in `vllm_engine`, on vLLM.

`families` knows how each class of model is asked, `slots` lets its language model write many captions at one time,
`sampling` draws the words, `choice` picks among candidates, `reading` opens images in other processes, and
`recaptioner` makes records of all that.
"""
