"""python -m estimator_ckpt VERB ..."""

import sys

from estimator_ckpt.cli import main

sys.exit(main())
