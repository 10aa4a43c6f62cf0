//! ROUGE-L (Lin 2004) as the COCO caption tools compute it: the longest common subsequence, beta 1.2, best precision
//! and best recall over the references.

const BETA: f64 = 1.2;

/// The score of a tokenised caption against its references. A caption without a token counts as one empty token.
pub(super) fn score(candidate: &str, references: &[String]) -> f64 {
    let candidate: Vec<&str> = candidate.split(' ').collect();
    let (mut precision, mut recall) = (0.0f64, 0.0f64);
    for reference in references {
        let reference: Vec<&str> = reference.split(' ').collect();
        let common = common(&candidate, &reference) as f64;
        precision = precision.max(common / candidate.len() as f64);
        recall = recall.max(common / reference.len() as f64);
    }
    if precision == 0.0 || recall == 0.0 {
        return 0.0;
    }
    (1.0 + BETA * BETA) * precision * recall / (recall + BETA * BETA * precision)
}

/// Length of the longest common subsequence.
fn common(a: &[&str], b: &[&str]) -> usize {
    let mut row = vec![0; b.len() + 1];
    for word in a {
        let mut diagonal = 0;
        for (j, other) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = if word == other { diagonal + 1 } else { above.max(row[j]) };
            diagonal = above;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subsequences() {
        let check = |a: &str, b: &str, expected: usize| {
            let split = |text: &'static str| text.split(' ').collect::<Vec<_>>();
            let (a, b) = (split(Box::leak(a.to_string().into())), split(Box::leak(b.to_string().into())));
            assert_eq!((common(&a, &b), common(&b, &a)), (expected, expected));
        };
        check("a b c d", "b d", 2);
        check("a b c", "c b a", 1);
        check("a b a b", "b a b a", 3);
        check("a", "b", 0);
    }
}
