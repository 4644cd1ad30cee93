"""Checks that a snippet cannot pass, each with its reason.

An entry is run all the same and must fail: when it passes, it is no longer needed and the run goes red.
"""

EXCEPTIONS: dict[str, dict[str, str]] = {
    "test_attention_changes_with_the_input": {
        "attention_factors:e4": "the relative position alone decides: all inputs have the same weights",
    },
    "test_sizes_fixed_by_the_constructor_are_checked": {
        "psanet": "a smaller map is meant: it reads the middle of the prediction",
        "psanet:smaller_map": "a smaller map is meant: it reads the middle of the prediction",
    },
    "test_takes_device_and_type_from_its_input": {
        "transformer": "positions start on the default device; the input's may lack float64",
        "transformer:pre_norm": "positions start on the default device; the input's may lack float64",
        "transformer:source_mask": "positions start on the default device; the input's may lack float64",
    },
    "test_a_choice_is_called_mode": {
        "attention_factors": "`factors` is the paper's code of four digits, no choice from a list",
    },
    "test_compiles_without_a_graph_break": {
        "blstm_attention": "the compiler refuses every nn.LSTM unless torch._dynamo.config.allow_rnn is set",
        "blstm_attention:without_mask": "the compiler refuses every nn.LSTM, see blstm_attention",
        "blstm_attention:padded_left": "the compiler refuses every nn.LSTM, see blstm_attention",
    },
    "test_every_parameter_receives_a_gradient": {
        "additive:projected": "project() has applied U_a before; forward is given the result",
        "key_value:masked_query": "a query is given, so the learned one, the only parameter, is not used",
        "multi_granularity": "argmax chooses a region: the logits of a grain train that, not forward",
        "multi_granularity:one_grain": "the logits of a grain train the choice of its region, not forward",
        "multi_granularity:wide_region": "the logits of a grain train the choice of its region, not forward",
        "em_attention": "the first convolution feeds steps that are not differentiated; it is frozen",
        "stochastic": "a draw has no derivative: REINFORCE trains the policy, not the output of forward",
        "ram": "a location has no derivative: REINFORCE trains where to look, not the output of forward",
        "ram:given": "the locations are given: location network and baseline are not needed for the output",
    },
    "test_the_hook_of_every_layer_fires": {
        "additive:projected": "project() has applied U_a before; forward is given the result",
    },
    "test_gradcheck": {
        "em_attention": "the steps of expectation-maximisation are constants in the backward pass",
        "ram": "a location has no derivative: it is a constant for what reads it",
        "hamburger": "all rounds but the last are constants in the backward pass, as in the paper",
        "hamburger:vq": "all rounds but the last are constants in the backward pass, as in the paper",
        "hamburger:cd": "all rounds but the last are constants in the backward pass, as in the paper",
    },
    "test_forward_mode_equals_backward_mode": {
        "ra_cnn": "torch 2.13 has no forward mode for grid_sample",
        "ra_cnn:features_as_maps": "torch 2.13 has no forward mode for grid_sample",
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
