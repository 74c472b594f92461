"""The names that a traced loss may use. Words only: :mod:`operations` finds what they stand for.

Kept out on purpose: everything random, in place, on files or devices, that leaves torch, or whose
result has a size that its arguments do not bound.
"""

from __future__ import annotations

CELLWISE = """
    abs absolute acos acosh add addcdiv addcmul allclose arccos arccosh arcsin arcsinh arctan
    arctan2 arctanh asin asinh atan atan2 atanh bitwise_and bitwise_not bitwise_or bitwise_xor ceil
    celu clamp clamp_max clamp_min clip copysign cos cosh cosine_similarity deg2rad digamma dist div
    divide eq erf erfc erfinv exp exp2 expand_as expm1 fix float_power floor floor_divide fmax fmin
    fmod frac ge greater greater_equal gt hardshrink heaviside hypot isclose isfinite isinf isnan
    isneginf isposinf ldexp le lerp less less_equal lgamma log log10 log1p log2 logaddexp logaddexp2
    logical_and logical_not logical_or logical_xor logit lt masked_fill masked_select max maximum
    min minimum mul multiply nan_to_num ne neg negative not_equal pairwise_distance positive pow
    prelu rad2deg reciprocal relu remainder round rsqrt rsub selu sgn sigmoid sign signbit sin sinc
    sinh sqrt square sub subtract take_along_dim tan tanh true_divide trunc where xlogy
"""
"""Functions of torch and methods of tensors that work cell by cell."""

REARRANGING = """
    all amax amin aminmax any argmax argmin argsort bfloat16 bool cat clone concat concatenate
    contiguous count_nonzero cummax cummin cumprod cumsum detach diff dim dot double fill flatten
    flip float full_like gather half index_add index_copy index_fill int is_floating_point kthvalue
    log_softmax logcumsumexp logsumexp long masked_scatter mean median moveaxis movedim nanmean
    nanmedian nansum narrow ndimension nelement norm numel ones_like permute prod ravel reshape
    reshape_as roll scatter scatter_add scatter_reduce select size softmax sort squeeze stack std
    std_mean sum swapaxes swapdims t to topk transpose tril triu type type_as unflatten unsqueeze
    var var_mean vdot view view_as zeros_like
"""
"""Those that reduce, rearrange or join what they get."""

MULTIPLYING = "outer quantile nanquantile"
"""Those that give something for each pair of cells."""

SPLITTING = "chunk split tensor_split unbind"
"""Those that give many views."""

NEURAL = """
    binary_cross_entropy binary_cross_entropy_with_logits celu elu gaussian_nll_loss hardsigmoid
    hardswish hardtanh hinge_embedding_loss huber_loss kl_div l1_loss leaky_relu log_softmax
    margin_ranking_loss mish mse_loss normalize poisson_nll_loss relu relu6 selu silu smooth_l1_loss
    soft_margin_loss softmax softmin softsign tanhshrink _threshold
"""
"""Functions of ``torch.nn.functional``."""

SPECIAL = """
    digamma entr erf erfc erfinv exp2 expit expm1 gammaln i0 log1p log_ndtr log_softmax logit
    logsumexp ndtr ndtri round sinc softmax xlog1py xlogy
"""
"""Functions of ``torch.special``."""

OPERATORS = "abs add and_ eq floordiv ge gt invert le lt mod mul ne neg or_ pos pow sub truediv xor"
"""Functions of ``operator``, beside ``getitem`` and ``matmul``."""

MATH = """
    acos acosh asin asinh atan atan2 atanh ceil copysign cos cosh degrees erf erfc exp expm1 fabs
    floor hypot isfinite isinf isnan lgamma log log10 log1p log2 pow radians sin sinh sqrt tan tanh
    trunc
"""
"""Functions of ``math``."""

KEYWORDS = """
    alpha approximate beta chunks condition correction delta descending destination device diagonal
    dim dim0 dim1 dims dtype end end_dim eps equal_nan exponent fill_value full include_self index
    inplace input interpolation k keepdim largest layout length log_input log_target margin mask max
    max_val memory_format min min_val mode n nan negative_slope neginf ord other out output_size p
    pad pos_weight posinf q reduce reduction repeats requires_grad rounding_mode rtol atol self
    shifts size size_average sizes sorted source split_size_or_sections src stable start start_dim
    _stacklevel step tensor1 tensor2 tensors threshold unbiased value weight x1 x2
"""
"""Keyword arguments."""

TEXTS = """
    mean sum none batchmean floor trunc fro constant reflect replicate circular tanh cpu linear
    lower higher midpoint nearest prod amax amin
"""
"""Texts as arguments, such as a reduction."""

EINSUM = "abcdefghijklmnopqrstuvwxyz,-> "
"""What an equation of einsum is written in."""

ATTRIBUTES = "shape ndim dtype device T mT"
"""Attributes of tensors."""

FIELDS = "values indices min max"
"""Fields of the tuples that some functions return."""
