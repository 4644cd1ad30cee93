"""Checks that a snippet cannot pass, each with its reason.

An entry is run all the same and must fail: when it passes, it is no longer needed and the run goes red.
"""

EXCEPTIONS: dict[str, dict[str, str]] = {
    "test_attention_changes_with_the_input": {
        "attention_factors:e4": "the relative position alone decides: the weights are the same for every input",
    },
    "test_sizes_fixed_by_the_constructor_are_checked": {
        "psanet": "a map smaller than the largest is meant: it reads the middle of the prediction",
        "psanet:smaller_map": "a map smaller than the largest is meant: it reads the middle of the prediction",
    },
    "test_compiles_without_a_graph_break": {
        "blstm_attention": "the compiler refuses every nn.LSTM unless torch._dynamo.config.allow_rnn is set",
    },
    "test_every_parameter_receives_a_gradient": {
        "multi_granularity": "argmax chooses a region: the logits of a grain train that, not forward",
        "em_attention": "the first convolution feeds steps that are not differentiated; it is frozen",
        "stochastic": "a draw has no derivative: REINFORCE trains the policy, not the output of forward",
        "ram": "a location has no derivative: REINFORCE trains where to look, not the output of forward",
    },
    "test_gradcheck": {
        "em_attention": "the steps of expectation-maximisation are constants in the backward pass",
        "ram": "a location has no derivative: it is a constant for what reads it",
        "hamburger": "all rounds but the last are constants in the backward pass, as in the paper",
        "hamburger:vq": "all rounds but the last are constants in the backward pass, as in the paper",
        "hamburger:cd": "all rounds but the last are constants in the backward pass, as in the paper",
    },
    "test_second_derivative": {
        "em_attention": "the steps of expectation-maximisation are constants in the backward pass",
        "ram": "a location has no derivative: it is a constant for what reads it",
        "hamburger": "all rounds but the last are constants in the backward pass, as in the paper",
        "hamburger:vq": "all rounds but the last are constants in the backward pass, as in the paper",
        "hamburger:cd": "all rounds but the last are constants in the backward pass, as in the paper",
    },
}
"""Name of the test -> slug -> reason."""
