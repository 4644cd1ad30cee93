"""Checks that a snippet cannot pass, each with its reason.

An entry is run all the same and must fail: when it passes, it is no longer needed and the run goes red.
"""

EXCEPTIONS: dict[str, dict[str, str]] = {
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
    },
    "test_second_derivative": {
        "em_attention": "the steps of expectation-maximisation are constants in the backward pass",
        "ram": "a location has no derivative: it is a constant for what reads it",
        "hamburger": "all rounds but the last are constants in the backward pass, as in the paper",
    },
}
"""Name of the test -> slug -> reason."""
