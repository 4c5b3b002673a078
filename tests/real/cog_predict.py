"""A Cog predictor that takes as long as it is told."""

import time

from cog import BasePredictor


class Predictor(BasePredictor):
    def predict(self, seconds: float) -> str:
        time.sleep(seconds)
        return "done"
