"""What differs between configs, by the names that the command line has."""

from leyden.differences import differences, flat

SGD = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1, "momentum": 0.0, "nesterov": False}}
ADAM = {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.001, "betas": [0.9, 0.999], "amsgrad": False}}


def test_names_are_dotted_and_without_init_args() -> None:
    config = {"seed": 0, "model": {"class_path": "a.Task", "init_args": {"optimizer": SGD, "net": None}}}
    assert flat(config) == {
        "seed": 0,
        "model.class_path": "a.Task",
        "model.optimizer.class_path": "torch.optim.SGD",
        "model.optimizer.lr": 0.1,
        "model.optimizer.momentum": 0.0,
        "model.optimizer.nesterov": False,
        "model.net": None,
    }


def test_only_what_differs_is_found_in_the_order_of_the_names() -> None:
    configs = [{"b": 1, "a": {"x": [1, 2]}, "c": 3}, {"b": 2, "a": {"x": [1, 3]}, "c": 3}, {"b": 1, "a": {"x": [1, 2]}}]
    found = differences(configs)
    assert list(found.items()) == [("a.x", [[1, 2], [1, 3], [1, 2]]), ("b", [1, 2, 1]), ("c", [3, 3, None])]


def test_an_option_that_a_class_lacks_counts_as_off() -> None:
    """So that a comparison of two optimizers does not list every default of both."""
    found = differences([{"optimizer": SGD}, {"optimizer": ADAM}])
    assert found == {
        "optimizer.class_path": ["torch.optim.SGD", "torch.optim.Adam"],
        "optimizer.lr": [0.1, 0.001],
        "optimizer.betas": [None, [0.9, 0.999]],
    }


def test_equal_configs_and_a_single_one_do_not_differ() -> None:
    assert differences([{"a": 1}, {"a": 1}]) == {}
    assert differences([{"a": 1}]) == {}


def test_off_and_zero_differ_where_both_are_written() -> None:
    assert differences([{"clip": None}, {"clip": 0}]) == {"clip": [None, 0]}
