"""The algorithms once more, in numpy float64 and step by step as the papers write them, to check femo_core against.

Deliberately not the linear form S ← A·S + b·F of femo_core: derivatives are differenced, momenta averaged.
"""

from __future__ import annotations

import math

import numpy as np


class Reference:
    """One sample batch (B, ...). beta may be adapted per sample; beta None is TaylorSeer."""

    def __init__(self, order, beta=None, gamma=0.0, bounds=(-1.0, 1.0), start="zero", fits=False):
        self.order, self.gamma, self.bounds, self.start, self.fits = order, gamma, bounds, start, fits
        self.gained = None  # by M^1 at the last update, were beta one more
        self.initial_beta, self.beta = beta, None
        self.derivatives, self.momenta, self.products, self.step = [], {}, {}, None

    def update(self, feature, step):
        feature = np.asarray(feature, np.float64)
        per_sample = (len(feature),) + (1,) * (feature.ndim - 1)
        if self.step is None:
            self.derivatives = [feature]
            if self.initial_beta is not None:
                self.beta = np.full(per_sample, self.initial_beta)
                if self.start == "feature":
                    self.momenta[1] = feature
        else:
            if self.gamma and self.products:
                axes = tuple(range(1, feature.ndim))
                size = [np.sqrt((x**2).sum(axis=axes)).reshape(per_sample) for x in (feature, self.predict(step))]
                self.beta = np.clip(self.beta + self.gamma * np.sign(size[0] - size[1]), *self.bounds)
            if self.fits and self.gained is not None:
                self.fit(feature, step, per_sample)
            new = [feature]
            for old in self.derivatives[: self.order]:
                new.append((new[-1] - old) / (step - self.step))
            self.derivatives = new
            if self.initial_beta is not None:
                for i, derivative in enumerate(new[1:], start=1):
                    if self.fits:
                        self.average_from_the_first(i, derivative)
                        continue
                    self.momenta[i] = self.beta * self.momenta.get(i, 0.0) + (1 - self.beta) * derivative
                    self.products[i] = self.products.get(i, 1.0) * self.beta
        self.step = step

    def average_from_the_first(self, i, derivative):
        before = self.momenta.get(i, derivative)
        self.momenta[i] = self.beta * before + (1 - self.beta) * derivative
        if i == 1 and i in self.products:
            self.gained = before - derivative
        self.products[i] = 0.0

    def fit(self, feature, step, per_sample):
        """By the normal equation of one unknown."""
        gained = self.gained * (step - self.step)
        error, axes = feature - self.predict(step), tuple(range(1, feature.ndim))
        change = (error * gained).sum(axes) / (gained**2).sum(axes)
        self.beta = np.clip(self.beta + change.reshape(per_sample), *self.bounds)

    def predict(self, step):
        k, forecast = step - self.step, self.derivatives[0]
        for i in range(1, len(self.derivatives)):
            slope = self.derivatives[i]
            if self.initial_beta is not None:
                slope = self.momenta[i] / (1 - self.products[i]) if self.start == "zero" else self.momenta[i]
            forecast = forecast + slope * k**i / math.factorial(i)
        return forecast
