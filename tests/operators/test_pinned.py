"""Memory that worker processes write into and a device reads from."""

import multiprocessing

import pytest
import torch

from bettersynth.operators.batched.pinned import PinnedSlots


def test_what_a_forked_process_writes_is_seen_here():
    slots = PinnedSlots(2, 8)
    number = slots.take()
    child = multiprocessing.get_context("fork").Process(target=lambda: slots.memory(number).fill_(7))
    child.start()
    child.join()
    assert slots.memory(number).tolist() == [7] * 8
    assert slots.memory(slots.take()).tolist() == [0] * 8


def test_a_slot_is_free_again_only_after_it_was_given_back():
    slots = PinnedSlots(2, 8)
    assert [slots.take(), slots.take()] == [0, 1]
    with pytest.raises(IndexError):
        slots.take()
    slots.reset()
    assert slots.take() == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_device_takes_a_slots_first_bytes():
    slots = PinnedSlots(1, 8)
    for value in (1, 2):
        slots.memory(slots.take()).fill_(value)
        assert slots.upload(0, 3, torch.device("cuda")).tolist() == [value] * 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_slot_is_free_again_while_the_device_is_busy():
    slots = PinnedSlots(1, 8)
    slots.upload(slots.take(), 3, torch.device("cuda"))
    torch.cuda._sleep(10**9)
    slots.memory(slots.take()).fill_(5)
    uploaded = slots.upload(0, 3, torch.device("cuda"))
    assert slots.take() == 0
    assert not torch.cuda.current_stream().query()
    assert uploaded.tolist() == [5] * 3
