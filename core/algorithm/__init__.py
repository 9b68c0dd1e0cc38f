"""The paper as pure functions of tensors: bank, attention, schedule, stream batch, one frame."""
