"""How good a distilled set is by itself, apart from what students make of it: `bench quality`.

Measurements are files beside the results (`records.py`), so that reports show them without measuring. Only what makes
them (`measure.py`) needs torch.
"""
