"""Where gradtui's own measures stand in a row: they come before anybody's."""

from gradtui.measures import MEASURES

NAMES = list(MEASURES)
BIAS_GRAD_NORM = NAMES.index("bias_grad_norm")
WEIGHT_GRAD_NORM = NAMES.index("weight_grad_norm")
GRAD_NORM = NAMES.index("grad_norm")
PARAM_NORM = NAMES.index("param_norm")
UPDATE_RATIO = NAMES.index("update_ratio")
ACTIVATION_MEAN = NAMES.index("activation_mean")
ACTIVATION_STD = NAMES.index("activation_std")
SATURATED = NAMES.index("saturated")
DEAD = NAMES.index("dead")
