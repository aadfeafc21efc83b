"""The structures of the textbook: storage, membership, and the projection as a natural gradient."""

import numpy as np
import pytest
from rootfree_textbook.structures import (
    layout,
    pack,
    packed_shapes,
    parse,
    project,
    structures_of,
    unpack,
)

STRUCTURES = [
    "dense",
    "diagonal",
    "block_diagonal(3)",
    "tril",
    "triu",
    "tril_toeplitz",
    "triu_toeplitz",
    "hierarchical(2,1)",
    "hierarchical(0,2)",
    "hierarchical(2,0)",
    "arrowhead(first_column)",
    "arrowhead(last_row)",
    "arrowhead(first_row)",
    "arrowhead(last_column)",
]
SIZES = [1, 2, 3, 5, 8]


def member(structure, d, seed=0):
    """A matrix of the class whose stored numbers are all different, not symmetric."""
    rng = np.random.default_rng(seed)
    shapes = [shape for shape in packed_shapes(structure, d) if 0 not in shape]
    return unpack(structure, [rng.standard_normal(shape) for shape in shapes], d)


def symmetric(d, seed=0):
    """A symmetric matrix."""
    matrix = np.random.default_rng(seed).standard_normal((d, d))
    return matrix + matrix.T


def basis(structure, d):
    """One matrix of ones per stored number: a basis of the class."""
    matrices = {}
    for entry, place in layout(structure, d).items():
        matrices.setdefault(place, np.zeros((d, d)))[entry] = 1.0
    return list(matrices.values())


class TestByHand:
    """What the table of section 3 shows, with numbers that say where they stand."""

    digits = np.array([[11.0 + 10 * i + j for j in range(5)] for i in range(5)])

    @pytest.mark.parametrize(
        ("structure", "d", "arrays"),
        [
            ("diagonal", 3, [[11, 22, 33]]),
            ("block_diagonal(2)", 3, [[[[11, 12], [21, 22]]], [[33]]]),
            ("block_diagonal(2)", 2, [[[[11, 12], [21, 22]]]]),
            ("block_diagonal(3)", 2, [[[11, 12], [21, 22]]]),
            ("block_diagonal", 2, [[[11, 12], [21, 22]]]),
            ("tril", 2, [[[11, 0], [21, 22]]]),
            ("triu", 2, [[[11, 12], [0, 22]]]),
            ("tril_toeplitz", 3, [[11, 21, 31]]),
            ("triu_toeplitz", 3, [[11, 12, 13]]),
            (
                "hierarchical(1,2)",
                5,
                [
                    [[11]],
                    [[12, 13, 14, 15]],
                    [22, 33],
                    [[42, 43], [52, 53]],
                    [[44, 45], [54, 55]],
                ],
            ),
            ("hierarchical(1,2)", 3, [[[11]], [[12, 13]], [[22, 23], [32, 33]]]),
            ("hierarchical(2,9)", 3, [[[11, 12], [21, 22]], [[13], [23]], [[33]]]),
            ("hierarchical(2,1)", 2, [[[11, 12], [21, 22]]]),
            ("hierarchical", 2, [[[11, 12], [21, 22]]]),
            ("hierarchical(1,0)", 3, [[[11]], [[12, 13]], [22, 33]]),
            ("hierarchical(0,1)", 3, [[11, 22], [[31, 32]], [[33]]]),
            ("arrowhead(first_column)", 3, [[11, 22, 33], [21, 31]]),
            ("arrowhead(last_row)", 3, [[11, 22, 33], [31, 32]]),
            ("arrowhead(first_row)", 3, [[11, 22, 33], [12, 13]]),
            ("arrowhead(last_column)", 3, [[11, 22, 33], [13, 23]]),
            ("arrowhead", 3, [[11, 22, 33], [12, 13]]),
            ("arrowhead(last_column)", 1, [[11]]),
        ],
    )
    def test_storage(self, structure, d, arrays):
        """Sections 3 and 3.3: the arrays, their order and shapes; none without entries."""
        packed = pack(structure, self.digits[:d, :d])
        assert len(packed) == len(arrays)
        for array, expected in zip(packed, arrays, strict=True):
            assert array.dtype == np.float64
            np.testing.assert_array_equal(array, np.array(expected, dtype=float), strict=True)

    @pytest.mark.parametrize(
        ("structure", "expected"),
        [
            ("dense", [[1, 2, 3], [2, 4, 5], [3, 5, 9]]),
            ("diagonal", [[1, 0, 0], [0, 4, 0], [0, 0, 9]]),
            ("block_diagonal(2)", [[1, 2, 0], [2, 4, 0], [0, 0, 9]]),
            ("tril", [[1, 0, 0], [4, 4, 0], [6, 10, 9]]),
            ("triu", [[1, 4, 6], [0, 4, 10], [0, 0, 9]]),
            ("tril_toeplitz", [[14 / 3, 0, 0], [7, 14 / 3, 0], [6, 7, 14 / 3]]),
            ("triu_toeplitz", [[14 / 3, 7, 6], [0, 14 / 3, 7], [0, 0, 14 / 3]]),
            ("hierarchical(1,1)", [[1, 4, 6], [0, 4, 0], [0, 10, 9]]),
            ("hierarchical(2,1)", [[1, 2, 6], [2, 4, 10], [0, 0, 9]]),
            ("hierarchical(0,2)", [[1, 0, 0], [4, 4, 5], [6, 5, 9]]),
            ("arrowhead(first_column)", [[1, 0, 0], [4, 4, 0], [6, 0, 9]]),
            ("arrowhead(last_row)", [[1, 0, 0], [0, 4, 0], [6, 10, 9]]),
            ("arrowhead(first_row)", [[1, 4, 6], [0, 4, 0], [0, 0, 9]]),
            ("arrowhead(last_column)", [[1, 0, 6], [0, 4, 10], [0, 0, 9]]),
        ],
    )
    def test_projection(self, structure, expected):
        """Section 3, last column: entries of one triangle only are doubled, tied ones averaged."""
        matrix = np.array([[1.0, 2, 3], [2, 4, 5], [3, 5, 9]])
        np.testing.assert_allclose(project(structure, matrix), expected, rtol=1e-15)


class TestLaws:
    """What holds for every structure and size."""

    @pytest.mark.parametrize("structure", STRUCTURES)
    @pytest.mark.parametrize("d", SIZES)
    def test_p23_projection_is_twice_the_natural_gradient(self, structure, d):
        """P23: m = Pi(N)/2 minimises 1/4 ||m + m^T||^2 - <N, m> over the class.

        With a basis B of the class that is F c = n, F_ab = 1/2 <B_a + B_a^T, B_b + B_b^T> and
        n_a = <N, B_a>. F does not see skew-symmetric matrices; least squares of least norm leaves
        them out.
        """
        N, matrices = symmetric(d), basis(structure, d)
        twice = [B + B.T for B in matrices]
        fisher = np.array([[np.sum(a * b) / 2 for b in twice] for a in twice])
        n = np.array([np.sum(N * B) for B in matrices])
        c = np.linalg.lstsq(fisher, n, rcond=None)[0]
        m = sum(weight * B for weight, B in zip(c, matrices, strict=True))
        np.testing.assert_allclose(project(structure, N), 2 * m, atol=1e-12)

    @pytest.mark.parametrize("structure", STRUCTURES)
    @pytest.mark.parametrize("d", SIZES)
    def test_trace_and_identity_are_kept(self, structure, d):
        """Section 3: tr Pi(N) = tr N and Pi(I) = I, so that gam I may be subtracted after Pi."""
        N = symmetric(d)
        assert np.trace(project(structure, N)) == pytest.approx(np.trace(N), abs=1e-12)
        np.testing.assert_array_equal(project(structure, np.eye(d)), np.eye(d))

    @pytest.mark.parametrize("structure", STRUCTURES)
    @pytest.mark.parametrize("d", SIZES)
    def test_storage_holds_the_class(self, structure, d):
        """Section 3: what is stored comes back, and so does a product: the class is closed."""
        K = member(structure, d)
        packed = pack(structure, K)
        assert [array.shape for array in packed] == [
            shape for shape in packed_shapes(structure, d) if 0 not in shape
        ]
        np.testing.assert_array_equal(unpack(structure, packed, d), K)
        for product in (
            K @ member(structure, d, seed=1),
            K @ (np.eye(d) - 0.1 * project(structure, symmetric(d))),
        ):
            again = unpack(structure, pack(structure, product), d)
            np.testing.assert_allclose(again, product, rtol=0, atol=1e-13)

    @pytest.mark.parametrize("structure", STRUCTURES)
    def test_arguments_and_results_share_nothing(self, structure):
        """The functions read their arguments and return new arrays."""
        matrix = symmetric(5)
        matrix.flags.writeable = False
        packed = pack(structure, matrix)
        for array in packed:
            array.flags.writeable = False
        unpacked = unpack(structure, packed, 5)
        results = [*packed, project(structure, matrix), unpacked]
        assert not any(np.shares_memory(result, matrix) for result in results)
        assert not any(np.shares_memory(unpacked, array) for array in packed)


class TestCoincidences:
    """Two names for one class."""

    @pytest.mark.parametrize(
        ("one", "other", "d"),
        [
            ("arrowhead(first_row)", "hierarchical(1,0)", 5),
            ("arrowhead(last_row)", "hierarchical(0,1)", 5),
            ("hierarchical(0,0)", "diagonal", 5),
            ("hierarchical(7,0)", "dense", 5),
            ("block_diagonal(1)", "diagonal", 5),
            ("block_diagonal(5)", "dense", 5),
            ("block_diagonal(9)", "dense", 5),
            ("arrowhead(first_column)", "tril", 2),
            ("arrowhead(last_row)", "tril", 2),
            ("arrowhead(first_row)", "triu", 2),
            ("arrowhead(last_column)", "triu", 2),
            *[(structure, "dense", 1) for structure in STRUCTURES],
        ],
    )
    def test_same_projection(self, one, other, d):
        """Sections 3 and 3.3: the same members and the same projection."""
        assert set(layout(one, d)) == set(layout(other, d))
        np.testing.assert_array_equal(project(one, symmetric(d)), project(other, symmetric(d)))

    def test_hierarchical_is_block_triangular(self):
        """Section 3: of B1, B2, Dm only one triangle exists, of A and E both."""
        entries = set(layout("hierarchical(2,2)", 6))
        one_sided = {(i, j) for i, j in entries if (j, i) not in entries}
        assert one_sided == {(i, j) for i in (0, 1) for j in range(2, 6)} | {
            (i, j) for i in (4, 5) for j in (2, 3)
        }


class TestNames:
    """What a caller may write."""

    def test_defaults_are_written_out(self):
        """The sizes of the authors' code: blocks of 30, two corners of 15."""
        assert parse("block_diagonal") == parse("block_diagonal(30)")
        assert parse("hierarchical") == parse("hierarchical( 15, 15 )")
        assert parse("arrowhead") == parse("arrowhead(first_row)")

    @pytest.mark.parametrize(
        "structure",
        [
            "",
            "densest",
            "dense(2)",
            "dense()",
            "block_diagonal(0)",
            "block_diagonal(-1)",
            "block_diagonal(2,3)",
            "hierarchical(2)",
            "hierarchical(1,-2)",
            "arrowhead(3)",
            "arrowhead()",
            "tril toeplitz",
        ],
    )
    def test_what_is_no_structure(self, structure):
        """Unknown names and wrong arguments are errors, with the structure named."""
        with pytest.raises(ValueError, match="structure"):
            parse(structure)

    def test_one_for_each_axis(self):
        """Section 3.3: a name, a tuple with one entry per axis, or a mapping from their number."""
        assert structures_of("tril", (3, 4), None) == ["tril", "tril"]
        assert structures_of(("tril", "diagonal"), (3, 4), None) == ["tril", "diagonal"]
        mapping = {1: "dense", 2: ("tril", "diagonal")}
        assert structures_of(mapping, (3,), None) == ["dense"]
        assert structures_of(mapping, (3, 4), None) == ["tril", "diagonal"]
        with pytest.raises(ValueError, match="no entry for 3 axes"):
            structures_of(mapping, (3, 4, 5), None)
        with pytest.raises(ValueError, match="one entry for each axis"):
            structures_of(("tril", "diagonal"), (3,), None)
        with pytest.raises(ValueError, match="unknown structure 'full'"):
            structures_of("full", (3,), None)

    def test_long_axes_become_diagonal(self):
        """Section 4.8: only where d x d numbers would be stored or formed, and only if longer."""
        quadratics = {"dense", "tril", "triu", "tril_toeplitz", "triu_toeplitz"}
        for quadratic in sorted(quadratics):
            assert structures_of(quadratic, (4, 5), 4) == [quadratic, "diagonal"]
            assert structures_of(quadratic, (4, 5), None) == [quadratic, quadratic]
        for linear in sorted(set(STRUCTURES) - quadratics):
            assert structures_of(linear, (4, 5), 4) == [linear, linear]
