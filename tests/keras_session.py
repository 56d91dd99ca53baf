"""What the jobs of Keras' optimizers that conversions start from, and lead to, have in common."""

from tensorflow_party import tf


class KerasSession:
    """A program of objects, which trains by hand.

    Attributes:
      variables: of the model, by name, in the order in which its loss takes them.
      ordered: the same in the order in which the optimizer was built.
      optimizer: of either kind, whose loss may be scaled.
      objects: a tf.train.Checkpoint of both.
    """

    STEPS: int

    def save(self, prefix):
        return self.objects.write(str(prefix))

    def train(self):
        """The loss before each of STEPS steps."""
        losses = []
        for _ in range(self.STEPS):
            with tf.GradientTape() as tape:
                loss = self.loss(*self.variables.values())
                scaled = _scaled(self.optimizer, loss)
            losses.append(loss.numpy())
            gradients = tape.gradient(scaled, self.ordered)
            if hasattr(self.optimizer, "get_unscaled_gradients"):
                gradients = self.optimizer.get_unscaled_gradients(gradients)
            self.optimizer.apply_gradients(zip(gradients, self.ordered))
        return losses


def _scaled(optimizer, loss):
    if hasattr(optimizer, "get_scaled_loss"):
        return optimizer.get_scaled_loss(loss)
    return optimizer.scale_loss(loss) if hasattr(optimizer, "scale_loss") else loss
