"""Data-Juicer's operators in batches: the same answers, forty to a hundred times as many a second.

Data-Juicer calls its models with one sample at a time. Here each filter of the contest is a subclass of Data-Juicer's
own that replaces only the computation of stats (`filters`), and the operators of a pass read each image together, once:

    records → `preparing` (worker processes: decode once, resize as Pillow does, find noun phrases, tokenise)
            → `lanes` (one per model: micro-batches on the device, halved when memory runs out)
            → `scorer.BatchScorer` (values back in the order of the records)

Parameters, stats keys, the splitting of texts into chunks, flips, reduce modes and keep rules stay Data-Juicer's; tests
compare every operator with the stock one. In fp32 scores agree within 1e-5, in fp16 within 1e-3, in bf16 within 8e-3.
Phrase grounding counts phrases found, so that a close call there moves its score by a whole phrase.

Upstream's behaviour that is kept, because a score means what Data-Juicer says it means:

- a record with the same image path twice has one aesthetics, watermark and NSFW score for both;
- phrase grounding gives 1 to a chunk without noun phrases, and does not count that chunk's images as used, so that the
  next chunk of the same record is compared with them;
- watermark and NSFW scores are the probability of class 1, whatever the model's labels say;
- similarity is the logit divided by 100, a cosine only where the model's scale is 100.

What differs from upstream:

- a damaged image gives no score instead of that of a half-grey picture (`bettersynth.pool.images`), and a chunk with
  fewer images than image tokens is an error; ingest refuses such records before they come here;
- noun phrases are sorted (`bettersynth.operators.data_juicer`);
- an image that is one or three pixels high is read as rows of pixels; transformers takes the rows for its channels.
"""
