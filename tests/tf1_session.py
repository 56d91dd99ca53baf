"""What the jobs of tf.compat.v1 that conversions start from, and lead to, have in common."""

from tensorflow_party import v1


class Tf1Session:
    """A session of a job; the job builds `graph`, and in it `loss` and `train_op`."""

    STEPS: int

    def start(self):
        """Makes the saver and the session, in the graph of the job."""
        self.saver = v1.train.Saver()
        self.session = v1.Session()
        self.session.run(v1.global_variables_initializer())

    def save(self, prefix, **options):
        options = {"write_meta_graph": False, **options}
        with self.graph.as_default():
            return self.saver.save(self.session, str(prefix), **options)

    def restore(self, prefix):
        with self.graph.as_default():
            self.saver.restore(self.session, str(prefix))

    def train(self):
        """The loss before each of STEPS steps."""
        losses = []
        for _ in range(self.STEPS):
            losses.append(self.session.run(self.loss))
            self.session.run(self.train_op)
        return losses
